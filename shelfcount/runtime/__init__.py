"""Inference with a bundle on LiteRT. This package does not import torch."""
