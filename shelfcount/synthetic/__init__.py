"""Synthetic shelf photos with exact labels."""
