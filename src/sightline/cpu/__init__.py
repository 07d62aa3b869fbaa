"""The CPU backend: kernels generated in Python, compiled by LLVM for the very processor and the very call."""
