"""Boxes, anchors, homographies and photos with NumPy and OpenCV, for training and inference."""
