"""Boxes, anchors, homographies and photos with NumPy and OpenCV, shared by training and the phone."""
