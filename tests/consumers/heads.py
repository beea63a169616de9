"""A network's outputs on given pixels, to be compared between processors.

    python heads.py MODEL.tflite PIXELS.npy OUT.npz

Runs wherever ai_edge_litert does. PIXELS are (n, H, W, 3) uint8; OUT holds the file's outputs as they are, in
their order, (n, ...) each. Prints as JSON how many delegates the interpreter handed the graph to.
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
    # LiteRT announces XNNPACK before it has taken anything, so the graph is asked instead.
    print(
        json.dumps(
            {"delegates": sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())}
        )
    )


if __name__ == "__main__":
    main()
