"""Keypoints and products of one photo for registration, and keypoint matches of two photos.

Lengths are in *units* from a photo's middle: a thousandth of the square root of its area, which
is a pixel at one megapixel, so that a tolerance means the same share of every photo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.vision.homography import map_boxes, map_points

SIDE_UNITS = 1000.0
# Maximum number of keypoints. More do not improve the homography on synthetic shelves, and take
# time for each pair.
POINTS = 2000
# Contrast threshold of SIFT, half of OpenCV's default: labels in the shade of a cooler have little
# contrast.
MIN_CONTRAST = 0.02
# Number of matches kept for each keypoint: on a shelf with repeated products the nearest match is
# often on a neighbouring product.
_NEAREST = 5
# Ratio test. Lowe 2004, section 7.1, uses 0.8; the robust fit rejects the additional wrong matches.
RATIO = 0.85


@dataclass(frozen=True, eq=False)
class PhotoFeatures:
    """Registration data of one photo.

    Attributes:
        width, height: Size of the photo in pixels.
        points: (k, 2) float64 keypoints x, y in units.
        descriptors: (k, 128) float32 of length 1; their dot product is the similarity of two
            keypoints.
        boxes: (n, 4) float64 xyxy in units.
        classes: (n,) int64 class indices.
        picture: (h, w, 3) uint8 RGB, the photo, scaled down to one megapixel if it is larger.
    """

    width: int
    height: int
    points: NDArray[np.float64]
    descriptors: NDArray[np.float32]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    picture: NDArray[np.uint8]

    @property
    def half(self) -> NDArray[np.float64]:
        """(2,) half the width and half the height of the photo in units."""
        scale = SIDE_UNITS / 2 / np.sqrt(self.width * self.height)
        return np.asarray(np.array([self.width, self.height]) * scale)

    @property
    def to_units(self) -> NDArray[np.float64]:
        """(3, 3) transformation from pixels to units."""
        scale = SIDE_UNITS / np.sqrt(self.width * self.height)
        return np.array([[scale, 0, -self.half[0]], [0, scale, -self.half[1]], [0, 0, 1]])


def extract_features(image: NDArray[np.uint8], detections: Detections) -> PhotoFeatures:
    """Detect the keypoints of a photo and return its registration data.

    Args:
        image: (height, width, 3) uint8 RGB, upright. Keypoints are detected at one megapixel or
            less.
        detections: Products on the photo, boxes in its pixels.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, SIDE_UNITS / np.sqrt(width * height))
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    picture = image
    if shrink < 1:
        picture = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=POINTS, contrastThreshold=MIN_CONTRAST
    )
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    # The centre of pixel i is at i for OpenCV, but at i + 0.5 for boxes.
    places = (
        (np.array([k.pt for k in keypoints], np.float64).reshape(-1, 2) + 0.5)
        * np.array([width, height])
        / size
    )
    # RootSIFT (Arandjelovic and Zisserman 2012): square roots of the normalized descriptors match
    # better.
    shares = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
    roots = np.sqrt(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    empty = PhotoFeatures(
        width, height, np.zeros((0, 2)), roots, np.zeros((0, 4)), detections.classes, picture
    )
    boxes = map_boxes(detections.boxes, empty.to_units)
    return replace(empty, points=map_points(places, empty.to_units), boxes=boxes)


@dataclass(frozen=True, eq=False)
class KeypointMatches:
    """Matches of each keypoint of photo a among those of photo b.

    Attributes:
        index: (5, k) int64, keypoints of b, the most similar first.
        distinct: (k,) bool, whether the first match passes the ratio test and is mutual.
    """

    index: NDArray[np.int64]
    distinct: NDArray[np.bool_]


def match_keypoints(a: PhotoFeatures, b: PhotoFeatures) -> KeypointMatches:
    """Match all keypoints of two photos; there are no matches if a photo has too few keypoints."""
    if min(len(a.points), len(b.points)) < _NEAREST:
        return KeypointMatches(
            np.zeros((0, len(a.points)), np.int64), np.zeros(len(a.points), bool)
        )
    alike = a.descriptors @ b.descriptors.T
    chosen_by_b, everyone = alike.argmax(axis=0), np.arange(len(alike))
    index, likeness = [], []
    for _ in range(_NEAREST):
        index.append(alike.argmax(axis=1))
        likeness.append(alike[everyone, index[-1]])
        alike[everyone, index[-1]] = -1
    distance = np.sqrt(np.maximum(2 - 2 * np.array(likeness[:2]), 0))
    distinct = (distance[0] < RATIO * distance[1]) & (chosen_by_b[index[0]] == everyone)
    return KeypointMatches(np.array(index), distinct)
