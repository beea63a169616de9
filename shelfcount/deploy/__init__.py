"""Conversion, quantization and everything that a bundle contains."""
