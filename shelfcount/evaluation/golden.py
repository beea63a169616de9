"""Golden photos: what an app has to find on them to count as the report did.

They travel in the bundle with the detections of this package's own runtime, and with the tolerance
that another runtime must meet. Given the same pixels, every runtime with XNNPACK computes the same;
what differs is how each decodes a photo and resizes it to the network's input. So the tolerance is
measured: the model sees the photos through other common resize kernels and a decoder's noise, its boxes
are cut to whole pixels as MediaPipe does, and an app may differ by `MARGIN` times as much.
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

from shelfcount.evaluation.metrics import Score, match
from shelfcount.records import Dataset, Detections, ModelSpec, Photo, ShelfcountError
from shelfcount.runtime.bundle import LOWEST_SCORE, Bundle, LiteRTDetector
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import decode_photo, encode_photo, read_photo

GOLDEN_FILE = "golden/golden.json"
PHOTOS = 4
# Large enough that an app has to shrink them, small enough to ship.
LONGEST_SIDE = 1280
# A photo of the input's size would need no resize, and so would not test an app's.
ENLARGE = 1.5
# Bilinear is what MediaPipe and TensorFlow's image ops do, area what OpenCV shrinks by; a triangle as wide as what
# it shrinks, Pillow's and the browsers' bilinear, is close to bilinear after a blur.
KERNELS = {
    "bilinear": (cv2.INTER_LINEAR, 0.0),
    "area": (cv2.INTER_AREA, 0.0),
    "bilinear after a blur": (cv2.INTER_LINEAR, 0.6),
}
# Grey levels by which decoders of JPEG differ here and there, either way.
DECODER_NOISE = 2
# At 1.5, MediaPipe's decoder of JPEG reported a product on a golden photo that this runtime does not count: decoders
# differ by more than the noise that stands for them. export/consumers.py shows whether this is enough.
MARGIN = 2.0
# No tighter than this: decoders of JPEG differ by a grey level too, and a step of an int8 logit is up to 0.03 of a score.
LEAST_SCORE_TOLERANCE = 0.05
MOST_IOU_WANTED = 0.95


@dataclass(frozen=True)
class Tolerance:
    """How far an app's detections may lie from the golden ones.

    Attributes:
        iou: Smallest overlap of a detection with its golden partner.
        score: Largest difference of their scores, and half the band around the count threshold in
            which either side may lack a detection.
        reason: Where the two come from, for people.
    """

    iou: float
    score: float
    reason: str


@dataclass(frozen=True)
class Comparison:
    """An app's detections against the golden ones.

    Attributes:
        failures: One sentence for each breach of the tolerance; empty where the app is good.
        largest_box_px: Largest distance between edges of partners, pixels of the photo.
        largest_score: Largest difference of their scores.
        f1: Of what the app counts, against the labels, at IoU 0.5.
    """

    failures: tuple[str, ...]
    largest_box_px: float
    largest_score: float
    f1: float


def make(model: bytes, spec: ModelSpec, dataset: Dataset) -> dict[str, bytes]:
    """The files of ``golden/``: photos that show many classes, and what the model gives on them.

    Args:
        model: The main artifact.
        spec: Of the model.
        dataset: Validation photos with a licence to pass them on.

    Returns:
        Name in the bundle to content; the photos are written anew, upright and without EXIF.
    """
    low = LiteRTDetector(model, spec, score_threshold=LOWEST_SCORE)
    files: dict[str, bytes] = {}
    photos, images = [], []
    for number, photo in enumerate(choose(dataset, PHOTOS), start=1):
        name = f"{number}.jpg"
        factor = _factor(photo, spec)
        image = read_photo(photo.path)
        size = round(image.shape[1] * factor), round(image.shape[0] * factor)
        image = cv2.resize(
            image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        )
        data = encode_photo(image)
        files[f"golden/{name}"] = data
        # What the app will decode, not what was encoded.
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
    found = [low.detect(image) for image in images]
    allowed = measure_tolerance(low, images, found, spec.score_threshold)
    for entry, seen in zip(photos, found, strict=True):
        entry["detections"] = _listed(
            seen[seen.scores >= spec.score_threshold - allowed.score], spec, True
        )
        entry["counts"] = seen[seen.scores >= spec.score_threshold].counts(spec.classes)
    golden = {
        "score_threshold": spec.score_threshold,
        "tolerance": dataclasses.asdict(allowed),
        "photos": photos,
    }
    files[GOLDEN_FILE] = json.dumps(golden, indent=1, ensure_ascii=False).encode()
    return files


def tolerance(files: Mapping[str, bytes]) -> Tolerance:
    """As `make` measured it."""
    return Tolerance(**json.loads(files[GOLDEN_FILE])["tolerance"])


def choose(dataset: Dataset, most: int) -> list[Photo]:
    """Photos that together show as many classes as so few can, each the one that adds most; then by number of products."""
    left = [p for p in dataset.photos if (~p.truth.ignore).any()]
    shown: set[int] = set()
    chosen: list[Photo] = []
    while left and len(chosen) < most:
        best = max(left, key=lambda p: (len({*p.truth.classes.tolist()} - shown), len(p.truth)))
        left.remove(best)
        shown |= {*best.truth.classes.tolist()}
        chosen.append(best)
    return chosen


def measure_tolerance(
    detector: LiteRTDetector,
    images: Sequence[np.ndarray],
    found: Sequence[Detections],
    threshold: float,
) -> Tolerance:
    """How far counted detections move when the photos are resized by other kernels and boxes cut to whole pixels.

    Args:
        detector: Down to a score well below `threshold`.
        images: (h, w, 3) uint8 RGB.
        found: What it finds on them through `vision.images.stretch`.
        threshold: From which a detection counts.
    """
    spec = detector.spec
    smallest, largest = 1.0, 0.0
    rng = np.random.default_rng(0)
    for kernel, blur in KERNELS.values():
        for image, ours in zip(images, found, strict=True):
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
    iou = min(MOST_IOU_WANTED, math.floor(100 * (1 - MARGIN * (1 - smallest))) / 100)
    score = max(LEAST_SCORE_TOLERANCE, math.ceil(100 * MARGIN * largest) / 100)
    reason = (
        f"Runtimes decode and resize photos differently, and some cut boxes to whole pixels. Resized by {len(KERNELS)} kernels "
        f"({', '.join(KERNELS)}), with {DECODER_NOISE} grey levels of noise and so cut, counted boxes of this model kept an IoU of "
        f"{smallest:.3f} or more and scores moved by {largest:.3f} at most; an app may differ {MARGIN:g} times as much."
    )
    return Tolerance(max(iou, 0.5), min(score, threshold), reason)


def _whole_pixels(boxes: Detections) -> Detections:
    """As MediaPipe reports them: left, top, width and height cut to integers (detection_projection, 1.2.2)."""
    return boxes.replace(boxes=box_math.xywh_to_xyxy(np.trunc(box_math.xyxy_to_xywh(boxes.boxes))))


def _apart(ours: Detections, theirs: Detections, threshold: float) -> tuple[float, float]:
    """Smallest IoU and largest score difference of what either side counts; what the other lacks fell from its score to the threshold."""
    partner = match(ours, theirs).partner
    hit = np.flatnonzero(partner >= 0)
    hit = hit[np.maximum(theirs.scores[hit], ours.scores[partner[hit]]) >= threshold]
    overlap = box_math.iou(theirs.boxes[hit], ours.boxes[partner[hit]]).diagonal()
    lone = (
        np.concatenate([np.delete(ours.scores, partner[partner >= 0]), theirs.scores[partner < 0]])
        - threshold
    )
    moved = np.abs(theirs.scores[hit] - ours.scores[partner[hit]])
    return float(overlap.min(initial=1.0)), float(np.concatenate([moved, lone]).max(initial=0.0))


def read(bundle: Bundle) -> dict[str, Any]:
    """The golden file of a bundle.

    Raises:
        ShelfcountError: If it is missing or not as `make` writes it.
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
            f"'{path}' is not as `shelfcount export` writes it: {error!r}. Export the bundle again."
        ) from error
    return golden


def compare(
    golden: Mapping[str, Any], found: Sequence[Sequence[Mapping[str, Any]]], spec: ModelSpec
) -> Comparison:
    """Whether an app found on the golden photos what it should.

    Args:
        golden: From `read`.
        found: For each golden photo, in their order, {"class", "score", "box": [x, y, w, h]} down to
            the threshold less the tolerance.
        spec: Of the bundle.
    """
    tolerance, threshold = Tolerance(**golden["tolerance"]), float(golden["score_threshold"])
    sure = threshold + tolerance.score
    failures: list[str] = []
    box_px, score_off, total = 0.0, 0.0, Score(0, 0, 0)
    for photo, listed in zip(golden["photos"], found, strict=True):
        ours, theirs = _detections(photo["detections"], spec), _detections(listed, spec)
        partner = match(ours, theirs, tolerance.iou).partner
        missed = np.setdiff1d(np.flatnonzero(ours.scores >= sure), partner)
        extra = np.flatnonzero((theirs.scores >= sure) & (partner < 0))
        for kind, which, boxes in (("misses", missed, ours), ("adds", extra, theirs)):
            failures += [f"{photo['file']}: {kind} {_named(boxes, i, spec)}" for i in which]
        hit = np.flatnonzero(partner >= 0)
        apart = np.abs(theirs.scores[hit] - ours.scores[partner[hit]])
        failures += [
            f"{photo['file']}: {_named(theirs, i, spec)} must have a score within {tolerance.score} of {ours.scores[partner[i]]:.3f}"
            for i in hit[
                (apart > tolerance.score)
                & (np.maximum(theirs.scores[hit], ours.scores[partner[hit]]) >= sure)
            ]
        ]
        score_off = max(score_off, float(apart.max(initial=0.0)))
        box_px = max(
            box_px, float(np.abs(theirs.boxes[hit] - ours.boxes[partner[hit]]).max(initial=0.0))
        )
        counted, truth = theirs[theirs.scores >= threshold], _detections(photo["truth"], spec)
        hits = int(match(truth, counted).hit.sum())
        total = Score(total.truth + len(truth), total.found + len(counted), total.tp + hits)
    return Comparison(tuple(failures), round(box_px, 2), round(score_off, 4), round(total.f1, 4))


def check(bundle: Bundle) -> Comparison:
    """A bundle's own golden photos through this package's runtime."""
    golden = read(bundle)
    low = LiteRTDetector.open(
        bundle,
        score_threshold=max(LOWEST_SCORE, golden["score_threshold"] - golden["tolerance"]["score"]),
    )
    photos = [read_photo(bundle.path / "golden" / photo["file"]) for photo in golden["photos"]]
    return compare(
        golden, [_listed(low.detect(image), bundle.spec, True) for image in photos], bundle.spec
    )


def _factor(photo: Photo, spec: ModelSpec) -> float:
    fits = photo.width <= spec.width and photo.height <= spec.height
    return ENLARGE if fits else min(1.0, LONGEST_SIDE / max(photo.width, photo.height))


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
    return f"'{spec.classes[boxes.classes[i]]}' ({boxes.scores[i]:.3f}) at x {x:.0f}, y {y:.0f}, {w:.0f} x {h:.0f}"
