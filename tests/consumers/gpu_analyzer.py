"""Check of a bundle's files with TensorFlow's analyzer of GPU compatibility.

    python gpu_analyzer.py BUNDLE

Prints the warnings about each file as JSON. TensorFlow 2.17 is the last version that checks: since
2.18 the check is empty and reports every model as compatible
(github.com/tensorflow/tensorflow/issues/77042).
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import tensorflow as tf

# Prefix in tensorflow/lite/python/analyzer_wrapper/model_analyzer.cc, used for operators and for
# the whole graph.
COMPLAINT = "GPU COMPATIBILITY WARNING: "


def complaints(model: Path) -> list[str]:
    """Return the warnings about a file, empty if the GPU delegate supports it."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        tf.lite.experimental.Analyzer.analyze(model_path=str(model), gpu_compatibility=True)
    return [
        line.removeprefix(COMPLAINT)
        for line in output.getvalue().splitlines()
        if line.startswith(COMPLAINT)
    ]


def main() -> None:
    """Print the warnings about both files."""
    by_file = {
        file: complaints(Path(sys.argv[1]) / file) for file in ("model.tflite", "model-raw.tflite")
    }
    print(json.dumps({"version": tf.__version__, "complaints": by_file}))


if __name__ == "__main__":
    main()
