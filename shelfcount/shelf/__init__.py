"""Shelf rows, facings and gaps, photo quality, merging of photos and planogram compliance."""
