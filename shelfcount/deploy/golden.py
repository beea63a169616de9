"""Golden photos: expected detections for checking an app that embeds a bundle.

A bundle contains the photos with the detections of this package's runtime and the tolerance for
other runtimes. With the same pixels, runtimes with XNNPACK compute the same result, but they decode
photos and resize them to the network's input differently. The tolerance is therefore measured: the
photos are resized with other common kernels, the noise of a decoder is added, and the boxes are
truncated to whole pixels as in MediaPipe. An app may differ by `_MARGIN` times the largest
difference.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.matching import match
from shelfcount.metrics.scoring import DetectionCounts
from shelfcount.records import Dataset, Detections, ModelSpec, Photo, ShelfcountError
from shelfcount.runtime.bundle import Bundle, LiteRTDetector
from shelfcount.runtime.photos import read_photos
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import decode_photo, encode_photo
from shelfcount.vision.postprocess import LOWEST_SCORE

GOLDEN_FILE = "golden/golden.json"
GOLDEN_PHOTOS = 4
# Pixels: large enough that an app must shrink the photos, small enough for a bundle.
GOLDEN_SIDE = 1280
# Factor for photos that are not larger than the input, so that an app's resize is tested with them
# too.
ENLARGE = 1.5
# MediaPipe and TensorFlow resize with bilinear interpolation; area is common when OpenCV shrinks.
# Pillow and browsers widen the bilinear filter when they shrink, which is close to bilinear after a
# blur.
KERNELS = {
    "bilinear": (cv2.INTER_LINEAR, 0.0),
    "area": (cv2.INTER_AREA, 0.0),
    "bilinear after a blur": (cv2.INTER_LINEAR, 0.6),
}
# Maximum difference of JPEG decoders in grey levels, in both directions.
DECODER_NOISE = 2
# With 1.5, one product on a golden photo was detected with MediaPipe's JPEG decoder but not with
# this runtime: the decoders differ by more than the simulated noise.
# benchmarks/quality/consumers.py checks whether the margin is sufficient.
_MARGIN = 2.0
# Lower limit of the score tolerance: JPEG decoders differ by one grey level, and one int8 step of a
# logit is up to 0.03 in score.
MIN_SCORE_TOLERANCE = 0.05
MAX_IOU_TOLERANCE = 0.95


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences of an app's detections from the golden ones.

    Attributes:
        iou: Minimum IoU of a detection with the matched golden detection.
        score: Maximum difference of their scores. If the score of a detection differs from the
            score threshold by less than this, the detection may be missing on either side.
        reason: Explanation of the two values.
    """

    iou: float
    score: float
    reason: str


@dataclass(frozen=True)
class GoldenResult:
    """Comparison of an app's detections with the golden ones.

    Attributes:
        failures: One message for each difference outside the tolerance; empty if the app passes.
        largest_box_px: Largest distance between the edges of matched boxes, in pixels of the photo.
        largest_score: Largest difference between the scores of matched detections.
        f1: F1 of the app's detections above the score threshold against the labels, at IoU 0.5.
    """

    failures: tuple[str, ...]
    largest_box_px: float
    largest_score: float
    f1: float


def make_golden(model: bytes, spec: ModelSpec, dataset: Dataset) -> dict[str, bytes]:
    """Create the files of ``golden/``: photos with many classes, and the model's detections.

    Args:
        model: Content of the bundle's model.tflite.
        spec: Specification of the model.
        dataset: Validation photos whose licence allows distribution.

    Returns:
        Content of each file by its path in the bundle. The photos are encoded again, upright and
        without EXIF.
    """
    low = LiteRTDetector(model, spec, score_threshold=LOWEST_SCORE)
    files: dict[str, bytes] = {}
    photos, images = [], []
    chosen = choose_golden_photos(dataset, GOLDEN_PHOTOS)
    for number, (photo, image) in enumerate(read_photos(chosen), start=1):
        name = f"{number}.jpg"
        factor = _factor(photo, spec)
        size = round(image.shape[1] * factor), round(image.shape[0] * factor)
        kernel = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        resized = np.asarray(cv2.resize(image, size, interpolation=kernel), np.uint8)
        data = encode_photo(resized)
        files[f"golden/{name}"] = data
        # The decoded pixels are used, since the app decodes the file too.
        images.append(decode_photo(data, name))
        truth = photo.truth[~photo.truth.ignore]
        photos.append(
            {
                "file": name,
                "width": size[0],
                "height": size[1],
                "truth": _listed(truth.replace(boxes=truth.boxes * factor), spec, False),
            }
        )
    detections = [low.detect(image) for image in images]
    allowed = measure_tolerance(low, images, detections, spec.score_threshold)
    for entry, boxes in zip(photos, detections, strict=True):
        entry["detections"] = _listed(
            boxes[boxes.scores >= spec.score_threshold - allowed.score], spec, True
        )
        entry["counts"] = boxes[boxes.scores >= spec.score_threshold].counts(spec.classes)
    golden = {
        "score_threshold": spec.score_threshold,
        "tolerance": dataclasses.asdict(allowed),
        "photos": photos,
    }
    files[GOLDEN_FILE] = json.dumps(golden, indent=1, ensure_ascii=False).encode()
    return files


def tolerance(files: Mapping[str, bytes]) -> Tolerance:
    """Return the tolerance from files of `make_golden`."""
    return Tolerance(**json.loads(files[GOLDEN_FILE])["tolerance"])


def choose_golden_photos(dataset: Dataset, max_photos: int) -> list[Photo]:
    """Choose photos that together show many classes.

    Each time, the photo that adds the most classes is chosen; of several, the one with the most
    boxes.

    Args:
        dataset: Labelled photos.
        max_photos: Maximum number of photos.

    Returns:
        The photos in the order of their choice. Photos without products are never chosen.
    """
    candidates = [p for p in dataset.photos if (~p.truth.ignore).any()]
    shown: set[int] = set()
    chosen: list[Photo] = []

    def usefulness(photo: Photo) -> tuple[int, int]:
        return len({*photo.truth.classes.tolist()} - shown), len(photo.truth)

    while candidates and len(chosen) < max_photos:
        best = max(candidates, key=usefulness)
        candidates.remove(best)
        shown |= {*best.truth.classes.tolist()}
        chosen.append(best)
    return chosen


def measure_tolerance(
    detector: LiteRTDetector,
    images: Sequence[NDArray[np.uint8]],
    detections: Sequence[Detections],
    threshold: float,
) -> Tolerance:
    """Measure the effect of other resize kernels, decoder noise and truncated boxes on detections.

    Args:
        detector: Detector with a score threshold far below `threshold`.
        images: (h, w, 3) uint8 RGB, one per photo.
        detections: Detections on the images when they are resized by `vision.images.stretch`.
        threshold: Score threshold of the counts.

    Returns:
        The tolerance: `_MARGIN` times the largest changes, within fixed limits.
    """
    spec = detector.spec
    smallest, largest = 1.0, 0.0
    rng = np.random.default_rng(0)
    for kernel, blur in KERNELS.values():
        for image, ours in zip(images, detections, strict=True):
            smooth = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
            resized = cv2.resize(smooth, (spec.width, spec.height), interpolation=kernel).astype(
                np.int16
            )
            noise = rng.integers(-DECODER_NOISE, DECODER_NOISE, resized.shape, endpoint=True)
            resized = np.clip(resized + noise, 0, 255).astype(np.uint8)
            theirs = _whole_pixels(
                detector.detect_stretched(resized, image.shape[1], image.shape[0])
            )
            overlap, apart = _apart(ours, theirs, threshold)
            smallest, largest = min(smallest, overlap), max(largest, apart)
    iou = min(MAX_IOU_TOLERANCE, math.floor(100 * (1 - _MARGIN * (1 - smallest))) / 100)
    score = max(MIN_SCORE_TOLERANCE, math.ceil(100 * _MARGIN * largest) / 100)
    reason = (
        "Runtimes decode and resize photos differently, and some truncate boxes to whole pixels. "
        f"With {len(KERNELS)} resize kernels ({', '.join(KERNELS)}), {DECODER_NOISE} grey levels "
        f"of noise and truncated boxes, the IoU of counted boxes was at least {smallest:.3f} and "
        f"scores changed by at most {largest:.3f}. An app may differ by {_MARGIN:g} times as much."
    )
    return Tolerance(max(iou, 0.5), min(score, threshold), reason)


def _whole_pixels(boxes: Detections) -> Detections:
    """Truncate x, y, width and height to integers, as MediaPipe's detection_projection (1.2.2)."""
    return boxes.replace(boxes=box_math.xywh_to_xyxy(np.trunc(box_math.xyxy_to_xywh(boxes.boxes))))


def _apart(ours: Detections, other: Detections, threshold: float) -> tuple[float, float]:
    """Compare two sets of detections on a photo.

    Returns:
        Smallest IoU and largest score difference of the matched detections that at least one side
        counts. An unmatched detection contributes the difference between its score and the
        threshold.
    """
    partner = match(ours, other).partner
    hit = np.flatnonzero(partner >= 0)
    hit = hit[np.maximum(other.scores[hit], ours.scores[partner[hit]]) >= threshold]
    overlap = box_math.iou(other.boxes[hit], ours.boxes[partner[hit]]).diagonal()
    unmatched = (
        np.concatenate([np.delete(ours.scores, partner[partner >= 0]), other.scores[partner < 0]])
        - threshold
    )
    changes = np.abs(other.scores[hit] - ours.scores[partner[hit]])
    largest = np.concatenate([changes, unmatched]).max(initial=0.0)
    return float(overlap.min(initial=1.0)), float(largest)


def read_golden(bundle: Bundle) -> dict[str, Any]:
    """Read the golden file of a bundle.

    Args:
        bundle: An opened bundle.

    Returns:
        The content of ``golden/golden.json``.

    Raises:
        ShelfcountError: If the file is missing or not in the format that `make_golden` writes.
    """
    path = bundle.path / GOLDEN_FILE
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        Tolerance(**golden["tolerance"])
        for photo in golden["photos"]:
            _detections(photo["truth"], bundle.spec)
            _detections(photo["detections"], bundle.spec)
            _ = photo["file"], photo["counts"], float(golden["score_threshold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShelfcountError(
            f"cannot read '{path}': it is missing or does not have the format that "
            "`shelfcount export` writes. Export the bundle again."
        ) from error
    return golden


def compare_with_golden(
    golden: Mapping[str, Any], detections: Sequence[Sequence[Mapping[str, Any]]], spec: ModelSpec
) -> GoldenResult:
    """Compare an app's detections on the golden photos with the golden ones.

    Args:
        golden: Content of the golden file, from `read_golden`.
        detections: Detections of each golden photo, in their order, as
            {"class", "score", "box": [x, y, w, h]}, with scores down to the score threshold minus
            the score tolerance.
        spec: Specification of the bundle's model.

    Returns:
        The differences outside the tolerance, and the largest differences.
    """
    tolerance, threshold = Tolerance(**golden["tolerance"]), float(golden["score_threshold"])
    required = threshold + tolerance.score
    failures: list[str] = []
    box_px, score_difference, total = 0.0, 0.0, DetectionCounts(0, 0, 0)
    for photo, listed in zip(golden["photos"], detections, strict=True):
        ours, theirs = _detections(photo["detections"], spec), _detections(listed, spec)
        partner = match(ours, theirs, tolerance.iou).partner
        missed = np.setdiff1d(np.flatnonzero(ours.scores >= required), partner)
        extra = np.flatnonzero((theirs.scores >= required) & (partner < 0))
        for kind, which, boxes in (("misses", missed, ours), ("adds", extra, theirs)):
            failures += [f"{photo['file']}: {kind} {_named(boxes, i, spec)}" for i in which]
        hit = np.flatnonzero(partner >= 0)
        difference = np.abs(theirs.scores[hit] - ours.scores[partner[hit]])
        counts = np.maximum(theirs.scores[hit], ours.scores[partner[hit]]) >= required
        failures += [
            f"{photo['file']}: the score of {_named(theirs, i, spec)} differs from "
            f"{ours.scores[partner[i]]:.3f} by more than {tolerance.score}"
            for i in hit[(difference > tolerance.score) & counts]
        ]
        score_difference = max(score_difference, float(difference.max(initial=0.0)))
        box_px = max(
            box_px, float(np.abs(theirs.boxes[hit] - ours.boxes[partner[hit]]).max(initial=0.0))
        )
        counted, truth = theirs[theirs.scores >= threshold], _detections(photo["truth"], spec)
        hits = int(match(truth, counted).hit.sum())
        total = DetectionCounts(
            total.truth + len(truth), total.predicted + len(counted), total.tp + hits
        )
    return GoldenResult(
        tuple(failures), round(box_px, 2), round(score_difference, 4), round(total.f1, 4)
    )


def verify_golden(bundle: Bundle) -> GoldenResult:
    """Run a bundle on its golden photos with this package's runtime.

    Args:
        bundle: An opened bundle.

    Returns:
        The comparison with the golden detections.

    Raises:
        ShelfcountError: If the golden file or a photo cannot be read.
    """
    golden = read_golden(bundle)
    low = LiteRTDetector.open(
        bundle,
        score_threshold=max(LOWEST_SCORE, golden["score_threshold"] - golden["tolerance"]["score"]),
    )
    paths = [bundle.path / "golden" / photo["file"] for photo in golden["photos"]]
    photos = [image for _, image in read_photos(paths)]
    return compare_with_golden(
        golden, [_listed(low.detect(image), bundle.spec, True) for image in photos], bundle.spec
    )


def _factor(photo: Photo, spec: ModelSpec) -> float:
    fits = photo.width <= spec.width and photo.height <= spec.height
    return ENLARGE if fits else min(1.0, GOLDEN_SIDE / max(photo.width, photo.height))


def _listed(boxes: Detections, spec: ModelSpec, scored: bool) -> list[dict[str, Any]]:
    rows = zip(boxes.classes, boxes.scores, box_math.xyxy_to_xywh(boxes.boxes), strict=True)
    return [
        {
            "class": spec.classes[c],
            **({"score": round(float(s), 4)} if scored else {}),
            "box": [round(float(v), 2) for v in box],
        }
        for c, s, box in rows
    ]


def _detections(listed: Sequence[Mapping[str, Any]], spec: ModelSpec) -> Detections:
    boxes = np.array([d["box"] for d in listed], np.float32).reshape(-1, 4)
    classes = [spec.classes.index(d["class"]) for d in listed]
    return Detections(box_math.xywh_to_xyxy(boxes), classes, [d.get("score", 1.0) for d in listed])


def _named(boxes: Detections, i: Any, spec: ModelSpec) -> str:
    x, y, w, h = box_math.xyxy_to_xywh(boxes.boxes[i : i + 1])[0]
    name, score = spec.classes[boxes.classes[i]], boxes.scores[i]
    return f"'{name}' ({score:.3f}) at x {x:.0f}, y {y:.0f}, {w:.0f} x {h:.0f}"
