"""Detections of a bundle in one of the TensorFlow Lite interpreters, used as in an app.

    python interpreter.py tensorflow|tflite_runtime|ai_edge_litert BUNDLE

Prints the detections on the golden photos as JSON. The environment needs the interpreter and numpy,
but not shelfcount. Pillow or TensorFlow reads and resizes the photos, each with its own bilinear
filter.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def interpreter_class(consumer: str) -> Any:
    """Return the class `Interpreter` of a consumer."""
    if consumer == "tensorflow":
        return importlib.import_module("tensorflow").lite.Interpreter
    return importlib.import_module(f"{consumer}.interpreter").Interpreter


def pixels(consumer: str, photo: Path, height: int, width: int) -> np.ndarray:
    """Read and resize a photo as an app with this consumer does.

    Returns:
        (1, height, width, 3) uint8 RGB.
    """
    if consumer == "tensorflow":
        tf = importlib.import_module("tensorflow")
        # No antialiasing, like Android's Bitmap.createScaledBitmap.
        resized = tf.image.resize(
            tf.io.decode_jpeg(tf.io.read_file(str(photo)), channels=3), (height, width)
        )
        return tf.cast(tf.round(resized), tf.uint8).numpy()[None]
    from PIL import Image

    with Image.open(photo) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))[
            None
        ]


def detect(interpreter: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the interpreter on one image.

    Returns:
        Boxes (n, 4) as (ymin, xmin, ymax, xmax) in [0, 1], classes (n,) and scores (n,).
    """
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    boxes, classes, scores, count = (
        interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()
    )
    n = int(count[0])
    return boxes[0, :n].clip(0, 1), classes[0, :n].astype(int), scores[0, :n]


def main() -> None:
    """Print the detections of the consumer."""
    consumer, bundle = sys.argv[1], Path(sys.argv[2])
    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    labels = (bundle / "labels.txt").read_text(encoding="utf-8").splitlines()
    lowest = golden["score_threshold"] - golden["tolerance"]["score"]
    interpreter = interpreter_class(consumer)(model_path=str(bundle / "model.tflite"))
    interpreter.allocate_tensors()
    _, height, width, _ = interpreter.get_input_details()[0]["shape"].tolist()
    photos = []
    for photo in golden["photos"]:
        boxes, classes, scores = detect(
            interpreter, pixels(consumer, bundle / "golden" / photo["file"], height, width)
        )
        photos.append(
            [
                {"class": labels[k], "score": float(score), "box": box}
                for k, score, box in zip(
                    classes, scores, in_photo(boxes, photo["width"], photo["height"]), strict=True
                )
                if score >= lowest
            ]
        )
    print(
        json.dumps(
            {
                "consumer": consumer,
                "version": importlib.import_module(consumer).__version__,
                "photos": photos,
            }
        )
    )


def in_photo(boxes: np.ndarray, width: int, height: int) -> list[list[float]]:
    """Convert boxes from (ymin, xmin, ymax, xmax) in [0, 1] to [x, y, w, h] in photo pixels."""
    top, left, bottom, right = boxes.T * np.array([[height], [width], [height], [width]])
    return np.stack([left, top, right - left, bottom - top], axis=1).tolist()


if __name__ == "__main__":
    main()
