"""Terminal text about labels: lines on the agreement of two labellings."""

from __future__ import annotations

from shelfcount.labels.agreement_scores import Agreement


def agreement_lines(agreement: Agreement) -> list[tuple[str, str]]:
    """Return the agreement as (title, value with its 95 % interval) for a terminal."""

    def shown(value: float | None, name: str = "") -> str:
        ends = (
            " ({:.3f} to {:.3f})".format(*agreement.interval[name])
            if name in agreement.interval
            else ""
        )
        return "not measured" if value is None else f"{value:.3f}{ends}"

    parts = {
        "quality": "quality",
        "= presence": "presence",
        "x naming": "naming",
        "x tightness": "tightness",
    }
    return [
        *((title, shown(getattr(agreement.figures, name), name)) for title, name in parts.items()),
        ("Cohen's kappa of the classes", shown(agreement.kappa)),
        ("Krippendorff's alpha of presence and class", shown(agreement.alpha)),
    ]
