"""Boxes, anchors and pictures in numpy and OpenCV: what training and the phone share."""
