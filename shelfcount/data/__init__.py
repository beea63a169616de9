"""Labelled photos: formats, checks, corrections, splits, synthetic shelves and augmentation."""
