"""What TensorFlow's analyzer says of a bundle's files on a GPU delegate.

    python gpu_analyzer.py BUNDLE

Prints its complaints about each file as JSON. TensorFlow 2.17 is the last that looks: from 2.18 on the check
is empty and calls every model compatible (github.com/tensorflow/tensorflow/issues/77042).
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import tensorflow as tf

# As tensorflow/lite/python/analyzer_wrapper/model_analyzer.cc writes it, once for an operator and once for the graph.
COMPLAINT = "GPU COMPATIBILITY WARNING: "


def complaints(model: Path) -> list[str]:
    """What speaks against the GPU delegate, empty if nothing does."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        tf.lite.experimental.Analyzer.analyze(model_path=str(model), gpu_compatibility=True)
    return [
        line.removeprefix(COMPLAINT)
        for line in said.getvalue().splitlines()
        if line.startswith(COMPLAINT)
    ]


def main() -> None:
    """Print the complaints about both files."""
    found = {
        file: complaints(Path(sys.argv[1]) / file) for file in ("model.tflite", "model-raw.tflite")
    }
    print(json.dumps({"version": tf.__version__, "complaints": found}))


if __name__ == "__main__":
    main()
