"""Continuous batching of decoder-only generation over a block-wise cache."""
