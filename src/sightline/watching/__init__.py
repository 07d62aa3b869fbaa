"""Seeing inside a model as it runs: who calls attention, with what, and what is kept of it.

The room knows PyTorch and, where it is there, transformers; `sightline.watch` imports it once a model arrives.
"""
