"""Outputs of a network on given pixels, for comparing processors.

    python heads.py MODEL.tflite PIXELS.npy OUT.npz

Needs ai_edge_litert. PIXELS is an (n, H, W, 3) uint8 array. OUT contains the unchanged outputs of
the file in their order, (n, ...) each. Prints the number of delegate nodes in the graph as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    """Write the outputs."""
    model, pixels, out = sys.argv[1:]
    interpreter = Interpreter(model_path=model)
    interpreter.allocate_tensors()
    (source,), targets = interpreter.get_input_details(), interpreter.get_output_details()
    outputs: list[list[np.ndarray]] = [[] for _ in targets]
    for image in np.load(pixels):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        for collected, target in zip(outputs, targets, strict=True):
            collected.append(interpreter.get_tensor(target["index"])[0])
    np.savez(out, *(np.stack(collected) for collected in outputs))
    # LiteRT logs the creation of XNNPACK even if it delegates nothing, so the graph is inspected.
    print(
        json.dumps(
            {"delegates": sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())}
        )
    )


if __name__ == "__main__":
    main()
