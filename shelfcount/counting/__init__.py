"""Counting from Python: `shelfcount.count` and its results."""
