"""Boxes, anchors and images in numpy and OpenCV, shared by training and inference."""
