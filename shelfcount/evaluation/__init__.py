"""How good, how fast, how large: metrics, latency, comparison with the baseline."""
