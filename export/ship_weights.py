"""Make the weights in the package from a trained run.

    python export/ship_weights.py runs/drinks

Writes shelfcount/weights/ARCHITECTURE.safetensors in float16, which halves the size and makes no
difference as starting weights. The origin of the weights is stored in the file and in
shelfcount/weights/LICENSE.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save

from shelfcount.files import write_whole
from shelfcount.training.runs import load_run
from shelfcount.training.starting_weights import SHIPPED_FOLDER


def main() -> None:
    """Write the file and print its path and size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="Trained run.")
    detector = load_run(parser.parse_args().run)
    half = {
        k: v.to(torch.float16) if v.is_floating_point() else v
        for k, v in detector.net.state_dict().items()
    }
    kept = (
        "start",
        "data",
        "data_fingerprint",
        "licence",
        "attribution",
        "seed",
        "val_f1",
        "minutes",
    )
    origin = {key: detector.spec.provenance.get(key) for key in kept}
    path = SHIPPED_FOLDER / f"{detector.spec.architecture}.safetensors"
    write_whole(
        path,
        save({k: v.contiguous() for k, v in half.items()}, metadata={"origin": json.dumps(origin)}),
    )
    print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
