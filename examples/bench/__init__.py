"""Transformers of well-known shapes with random weights, and how busy they keep the array."""
