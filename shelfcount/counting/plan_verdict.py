"""Result of a planogram check: a counted shelf and its deviations from the planogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.counting.display import import_optional, preview_jpeg
from shelfcount.drawing.planogram_picture import draw_verdict
from shelfcount.shelf import compliance

if TYPE_CHECKING:
    from shelfcount.counting.results import ShelfCount


@dataclass(frozen=True, eq=False)
class PlanVerdict:
    """Compliance of a shelf with a planogram.

    Attributes:
        shelf: The counted shelf.
        verdict: Score and deviations; boxes in pixels of the shelf's image.
    """

    shelf: ShelfCount
    verdict: compliance.ComplianceResult

    @property
    def score(self) -> float:
        """Share of facings as planned, in [0, 1]."""
        return self.verdict.score

    @property
    def deviations(self) -> tuple[compliance.Deviation, ...]:
        """Deviations by row of the planogram, followed by products that are not planned."""
        return self.verdict.deviations

    def picture(self) -> NDArray[np.uint8]:
        """Draw the deviations on the shelf's image, with a list of them.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        return draw_verdict(self.shelf.image, self.shelf.arrangement, self.verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON data that ``shelfcount planogram --json`` writes.

        These are the photos with their homographies to pixels of the shelf's image, in which the
        boxes are given, the notes, and the deviations.
        """
        placed = [
            {"path": path, "homography": homography.tolist()}
            for path, homography in self.shelf.placed
        ]
        return {"photos": placed, "notes": list(self.shelf.notes), **self.verdict.to_json()}

    def to_pandas(self) -> Any:
        """Return the deviations as a pandas DataFrame, one row per deviation.

        Raises:
            ShelfcountError: If pandas is not installed.
        """
        columns = [
            "kind",
            "class",
            "facings",
            "plan_row",
            "shelf_row",
            "planned",
            "seen",
            "instead",
            "message",
        ]
        return import_optional("pandas", "to_pandas()").DataFrame(
            self.verdict.to_json()["deviations"], columns=columns
        )

    def __repr__(self) -> str:
        return "\n".join(
            [
                f"{self.shelf.name}: {100 * self.score:.0f} % as planned",
                *(f"  {deviation}" for deviation in self.deviations),
            ]
        )

    def _repr_jpeg_(self) -> bytes:
        return preview_jpeg(self.picture())
