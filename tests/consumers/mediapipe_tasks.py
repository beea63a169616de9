"""Detections of a bundle in the ObjectDetector of MediaPipe Tasks, used as in an app.

    python mediapipe_tasks.py BUNDLE model.tflite|model-raw.tflite

Prints the detections on the golden photos as JSON. MediaPipe takes classes, input and output only
from the metadata of the file, and it reads and resizes the photos.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision


def to_json(detection: Any) -> dict[str, Any]:
    """Return class, score and box [x, y, w, h] of a detection.

    The box is in pixels of the photo; MediaPipe returns whole numbers.
    """
    (best,), box = detection.categories, detection.bounding_box
    return {
        "class": best.category_name,
        "score": best.score,
        "box": [box.origin_x, box.origin_y, box.width, box.height],
    }


def main() -> None:
    """Print the detections of MediaPipe."""
    bundle, file = Path(sys.argv[1]), sys.argv[2]
    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    spec = json.loads((bundle / "model.json").read_text())["spec"]
    options = vision.ObjectDetectorOptions(
        base_options=BaseOptions(model_asset_path=str(bundle / file)),
        score_threshold=golden["score_threshold"] - golden["tolerance"]["score"],
        max_results=spec["max_detections"],
    )
    with vision.ObjectDetector.create_from_options(options) as detector:
        results = [
            detector.detect(mp.Image.create_from_file(str(bundle / "golden" / photo["file"])))
            for photo in golden["photos"]
        ]
    photos = [[to_json(detection) for detection in result.detections] for result in results]
    print(json.dumps({"consumer": "mediapipe", "version": mp.__version__, "photos": photos}))


if __name__ == "__main__":
    main()
