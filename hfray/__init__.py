"""hfray: Hugging Face models on Ray, from one laptop to a cluster."""

__version__ = "0.1.0"
