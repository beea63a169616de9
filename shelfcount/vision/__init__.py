"""Boxes, anchors, homographies and photos with NumPy and OpenCV, for training and inference."""

from shelfcount.machine import explain_opencv_error

try:
    import cv2  # noqa: F401
except ImportError as error:
    message = explain_opencv_error(error)
    if message is None:
        raise
    raise ImportError(message, name="cv2") from error
