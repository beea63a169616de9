"""Latency, model size, operator profiles and the comparison with the baseline."""
