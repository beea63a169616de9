"""Inference with a bundle on LiteRT, from photo to detections; never imports torch."""
