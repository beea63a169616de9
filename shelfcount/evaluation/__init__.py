"""Evaluation of models: detection metrics, latency, and comparison with the baseline."""
