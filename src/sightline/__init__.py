"""Sightline: exact scaled dot-product attention on the CPU, at the speed of kernels generated for the very call."""

__version__ = "0.1.0"
