"""Analysis of detected boxes: counts, rows, facings, planograms, merging of photos."""
