"""A network that detects painted products, to measure the cost of what follows the network.

Its scores are the brightness of the photo, so that post-processing gets as many products as needed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from shelfcount.deploy import convert
from shelfcount.deploy.bundle import main_artifact
from shelfcount.records import AnchorLevel, ModelSpec
from shelfcount.runtime.bundle import LiteRTDetector

# Number of anchors with a score above the file's threshold for each product, as for the released
# bundle on its golden photos.
CANDIDATES = 11
# Side of a painted product in pixels: 26 x 26 products fit in an input of 416.
PLACE_PX = 16


class Painted(nn.Module):
    """Detects a product of the first class at each bright place, with the anchors as boxes."""

    def __init__(self, classes: int, anchors: int) -> None:
        super().__init__()
        self.classes, self.anchors = classes, anchors
        self.pool = nn.AvgPool2d(PLACE_PX)
        self.score = nn.Conv2d(3, anchors * classes, 1)
        self.place = nn.Conv2d(3, anchors * 4, 1)
        with torch.no_grad():
            # A bright place gives the first class a score of 0.99 and the others 0.02. A dark place
            # gives all classes at most 0.0001.
            logits = torch.full((anchors, classes), -4.0)
            logits[:, 0] = 4.6
            self.score.weight.copy_(
                (logits[:, :, None] + 9).expand(-1, -1, 3).reshape(-1, 3, 1, 1) / 6
            )
            self.score.bias.copy_((logits - 9).reshape(-1) / 2)
            self.place.weight.zero_()
            self.place.bias.zero_()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.pool(x)
        heads = [(self.place(pooled), 4), (self.score(pooled), self.classes)]
        location, scores = (
            head.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width) for head, width in heads
        )
        return location, scores


def crafted_level() -> AnchorLevel:
    """Return `CANDIDATES` anchors per location.

    Each overlaps the next size by more than suppression allows, and none overlaps a neighbour.
    """
    sides = np.linspace(0.75, 1, CANDIDATES) * PLACE_PX
    return AnchorLevel(PLACE_PX, tuple((float(side), float(side)) for side in sides))


def crafted(size: int, classes: int) -> LiteRTDetector:
    """Export a file that detects painted products, with post-processing as in every bundle."""
    spec = ModelSpec(
        "painted",
        "painted",
        tuple(f"product {i}" for i in range(classes)),
        size,
        size,
        (crafted_level(),),
    )
    return LiteRTDetector(
        main_artifact(convert.to_litert(Painted(classes, CANDIDATES), spec), spec, "float32", []),
        spec,
    )


def painted(size: int, products: int) -> np.ndarray:
    """Return a dark photo with bright products in rows from the top, (size, size, 3) uint8."""
    across = size // PLACE_PX
    bright = (np.arange(across**2) < products).reshape(across, across)
    return (
        np.repeat(bright.repeat(PLACE_PX, 0).repeat(PLACE_PX, 1)[..., None], 3, axis=2).astype(
            np.uint8
        )
        * 255
    )
