"""Labelled photos: formats, splits, synthetic shelves, augmentation."""
