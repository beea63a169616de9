"""Deployment budget of a phone: limits for a model, compared with measured or estimated values.

Latency is measured on the phone. If no phone is attached, it is estimated from the
multiply-accumulates of the model and from latencies that were published for the phone. The estimate
is a range. It is always called an estimate, and is never stored in the same field as a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from shelfcount.deploy import inspection
from shelfcount.records import ShelfcountError
from shelfcount.runtime.bundle import Bundle
from shelfcount.speed import adb
from shelfcount.speed.adb import PhoneRun
from shelfcount.validation import read_validated
from shelfcount.words import NOT_MEASURED, plural

State = Literal["kept", "missed", "open"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Section):
    """Limits for a model on a phone. Limits that are left out are not checked."""

    size_mb: PositiveFloat | None = Field(
        default=None, description="Maximum size of model.tflite in megabytes (10^6 bytes)."
    )
    latency_ms: PositiveFloat | None = Field(
        default=None,
        description="Maximum median latency per photo in milliseconds, with suppression.",
    )
    memory_mb: PositiveFloat | None = Field(
        default=None,
        description="Maximum megabytes (10^6 bytes) of memory for loading and running the model.",
    )
    f1_below_baseline: NonNegativeFloat | None = Field(
        default=None, description="Maximum F1 loss against the baseline."
    )
    int8_drop: NonNegativeFloat | None = Field(
        default=None,
        description="Maximum F1 loss from PyTorch to the file, on validation photos.",
    )
    operators: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Operators that the file may contain."
    )


class Published(_Section):
    """A published latency of an int8 network on this phone, from which its throughput follows."""

    network: str
    mmac: PositiveFloat = Field(description="Millions of multiply-accumulates of one pass.")
    ms: PositiveFloat
    source: str = Field(min_length=1, description="Source of both numbers.")

    @property
    def gmac_per_s(self) -> float:
        """Throughput in billions of multiply-accumulates per second."""
        return self.mmac / self.ms


class Phone(_Section):
    """A phone, or another small computer, with its budget for a model."""

    name: str = Field(min_length=1)
    model: str = Field(
        default="",
        description="Android's ro.product.model, which adb reports; empty without Android.",
    )
    threads: int = Field(default=1, ge=1)
    cores: str = Field(
        default="",
        pattern=r"^[0-9a-fA-F]*$",
        description="Hexadecimal mask of the processor cores to measure on; empty for all.",
    )
    budget: Budget
    published: tuple[Published, ...] = Field(
        default=(), description="Published latencies for the estimate if no phone is attached."
    )


@dataclass(frozen=True)
class ModelFacts:
    """Measurements of a model that do not depend on the phone. A value of None was not measured.

    Attributes:
        size: Size of model.tflite in bytes.
        macs: Number of multiply-accumulates of one pass.
        operators: Names of the operators in the file, each once.
        recipe: Quantization recipe of the file. Latency is estimated only for int8, since the
            published latencies are of int8 networks.
        memory_mb: Memory for loading and running the model on the computer that measured it, in
            10^6 bytes.
        f1, baseline_f1: F1 of the model and of the baseline on the same test photos.
        float_f1, int8_f1: F1 before and after quantization, on the same validation photos.
    """

    size: int
    macs: int
    operators: tuple[str, ...]
    recipe: str = "int8"
    memory_mb: float | None = None
    f1: float | None = None
    baseline_f1: float | None = None
    float_f1: float | None = None
    int8_f1: float | None = None


@dataclass(frozen=True)
class BudgetLine:
    """Result for one limit of a budget.

    Attributes:
        name: Name of the limited value.
        budget, value: The limit and the value, as text with units.
        state: 'kept', 'missed', or 'open' if the value was not measured or the limit is within the
            range of the estimate.
        basis: Source of `value`.
    """

    name: str
    budget: str
    value: str
    state: State
    basis: str

    def __str__(self) -> str:
        return f"{self.state:6} {self.name}: {self.value}, budget {self.budget} ({self.basis})"


@dataclass(frozen=True)
class BudgetResult:
    """Comparison of a model with the budget of one phone.

    Attributes:
        phone: Name of the phone.
        lines: Results for the limits that the budget sets.
        measured: Measurement on this phone, or None.
        estimate_ms: Shortest and longest latency by the published throughputs. None if the latency
            was measured, none is published, or the model is not int8.
        sources: Sources of the estimate.
    """

    phone: str
    lines: tuple[BudgetLine, ...]
    measured: PhoneRun | None
    estimate_ms: tuple[float, float] | None
    sources: tuple[str, ...]

    @property
    def missed(self) -> bool:
        """Whether a limit of the budget is exceeded. Open lines do not count as missed."""
        return any(line.state == "missed" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object. Measurement and estimate are separate fields."""
        return {
            "phone": self.phone,
            "missed": self.missed,
            "lines": [asdict(line) for line in self.lines],
            "latency_measured": self.measured and self.measured.to_json(),
            "latency_estimate": self.estimate_ms
            and {"ms": list(self.estimate_ms), "sources": list(self.sources)},
        }


def packaged_phones() -> dict[str, Path]:
    """Return the files of the phones that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "phones").glob("*.toml"))}


def read_phones(paths: Sequence[Path]) -> list[Phone]:
    """Read phones from TOML files.

    Args:
        paths: One file per phone, or the name of a phone that comes with the package. A file of
            this name takes precedence.

    Returns:
        The phones, in the order of the files.

    Raises:
        ShelfcountError: If a file cannot be read, a key or value is not allowed, or two phones have
            the same name.
    """
    known = packaged_phones()
    files = [path if path.exists() else known.get(str(path), path) for path in paths]
    phones = [read_validated(path, Phone, "phone") for path in files]
    names = [phone.name for phone in phones]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ShelfcountError(
            f"several phones have the name '{double[0]}'. Each phone needs a unique name."
        )
    return phones


def model_facts(
    bundle: Bundle,
    *,
    f1: float | None = None,
    baseline_f1: float | None = None,
    memory_mb: float | None = None,
) -> ModelFacts:
    """Collect the measurements of a bundle that a budget limits.

    Args:
        bundle: The bundle. Size, multiply-accumulates, operators and the F1 of its export are read
            from it.
        f1: F1 of the bundle on test photos, if it was measured.
        baseline_f1: F1 of the baseline on the same photos, if it was measured.
        memory_mb: Memory in 10^6 bytes, if it was measured.

    Returns:
        The measurements.
    """
    model = (bundle.path / "model.tflite").read_bytes()
    measured = bundle.measured
    return ModelFacts(
        size=len(model),
        macs=inspection.count_macs(model),
        operators=tuple(sorted(set(inspection.operator_names(model)))),
        recipe=bundle.recipe,
        memory_mb=memory_mb,
        f1=f1,
        baseline_f1=baseline_f1,
        float_f1=measured.get("f1_pytorch"),
        int8_f1=measured.get("f1"),
    )


def measure_attached_phone(
    phones: Sequence[Phone], bundle: Bundle, binary: Path | None, serial: str | None
) -> list[PhoneRun]:
    """Measure the latency of a bundle on the attached phone.

    Args:
        phones: Phone files. Every one whose `model` is that of the attached phone is measured, with
            its threads and cores.
        bundle: The bundle whose model.tflite is run.
        binary: benchmark_model for the phone. None: nothing is measured.
        serial: Serial number of the phone. Needed only if several phones are attached.

    Returns:
        One measurement for each matching phone file.

    Raises:
        ShelfcountError: For the reasons given at `adb.choose_phone` and `adb.benchmark_on_phone`,
            or if `serial` is given without `binary`, `binary` without phones, or no phone file
            matches the attached phone.
    """
    if binary is None:
        if serial is not None:
            raise ShelfcountError(
                f"--adb-serial '{serial}' is given without --adb-binary. Give the path of LiteRT's "
                "benchmark_model too."
            )
        return []
    if not phones:
        raise ShelfcountError(
            "--adb-binary is given without --phone. Give the file of the phone to measure on too."
        )
    chosen = adb.choose_phone(serial)
    model = adb.android_model(chosen)
    matching = [phone for phone in phones if phone.model == model]
    if not matching:
        known = ", ".join(f"'{phone.model}'" for phone in phones if phone.model) or "none"
        raise ShelfcountError(
            f"the attached phone is '{model}', but no --phone file has this `model`, only {known}. "
            "Give the file of this phone."
        )
    return [
        adb.benchmark_on_phone(
            bundle.path / "model.tflite", binary, chosen, threads=phone.threads, cores=phone.cores
        )
        for phone in matching
    ]


def check_budgets(
    phones: Sequence[Phone], figures: ModelFacts, runs: Sequence[PhoneRun] = ()
) -> list[BudgetResult]:
    """Compare a model with the budget of each phone.

    Args:
        phones: Phones with their budgets.
        figures: Measurements of the model.
        runs: Measurements on phones. Each applies to phones with its model, threads and cores; for
            all other phones the latency is estimated.

    Returns:
        One comparison per phone, in the same order.
    """
    measured = {(run.model, run.threads, run.cores): run for run in runs}
    return [
        _check_budget(phone, figures, measured.get((phone.model, phone.threads, phone.cores)))
        for phone in phones
    ]


def estimate(phone: Phone, macs: int) -> tuple[float, float] | None:
    """Estimate the latency of a network on a phone from the throughputs that are published for it.

    Args:
        phone: The phone.
        macs: Multiply-accumulates of one pass. Other work, such as suppression, is not estimated.

    Returns:
        Shortest and longest latency in milliseconds. None if nothing is published for the phone.
    """
    speeds = [entry.gmac_per_s for entry in phone.published]
    return (macs / 1e6 / max(speeds), macs / 1e6 / min(speeds)) if speeds else None


def _check_budget(phone: Phone, facts: ModelFacts, run: PhoneRun | None) -> BudgetResult:
    budget = phone.budget
    lines = []
    guess = estimate(phone, facts.macs) if run is None and facts.recipe == "int8" else None
    if budget.size_mb is not None:
        lines.append(_limited("size", facts.size / 1e6, budget.size_mb, "{:.2f} MB", "the file"))
    if budget.latency_ms is not None:
        lines.append(_latency(phone, budget.latency_ms, run, guess, facts.recipe))
    if budget.memory_mb is not None:
        on_phone = run.timings.memory_mb if run else None
        memory = facts.memory_mb if on_phone is None else on_phone
        basis = "measured on this computer, not on the phone"
        if run and on_phone is not None:
            basis = f"measured on {run.model}"
        lines.append(_limited("memory", memory, budget.memory_mb, "{:.1f} MB", basis))
    if budget.f1_below_baseline is not None:
        lines.append(_baseline(facts, budget.f1_below_baseline))
    if budget.int8_drop is not None:
        drop = None
        if facts.float_f1 is not None and facts.int8_f1 is not None:
            # Bundles contain four decimals of each.
            drop = round(facts.float_f1 - facts.int8_f1, 4)
        name, basis = f"F1 loss from PyTorch to {facts.recipe}", "validation photos, at export"
        lines.append(_limited(name, drop, budget.int8_drop, "{:.4f}", basis))
    if budget.operators is not None:
        lines.append(_operators(facts.operators, budget.operators))
    sources = tuple(dict.fromkeys(entry.source for entry in phone.published)) if guess else ()
    rounded = (round(guess[0], 1), round(guess[1], 1)) if guess else None
    return BudgetResult(phone.name, tuple(lines), run, rounded, sources)


def _limited(name: str, value: float | None, limit: float, form: str, basis: str) -> BudgetLine:
    shown = f"at most {form.format(limit)}"
    if value is None:
        return BudgetLine(name, shown, NOT_MEASURED, "open", NOT_MEASURED)
    return BudgetLine(
        name, shown, form.format(value), "kept" if value <= limit else "missed", basis
    )


def _latency(
    phone: Phone, limit: float, run: PhoneRun | None, guess: tuple[float, float] | None, recipe: str
) -> BudgetLine:
    name, shown = f"latency, {plural(phone.threads, 'thread')}", f"at most {limit:g} ms"
    if run is not None:
        timings = run.timings
        value, kind = (
            (timings.p50_ms, "median") if timings.p50_ms is not None else (timings.mean_ms, "mean")
        )
        basis = (
            f"measured: {kind} of {plural(timings.runs, 'run')} on {run.model}, {run.chip}, "
            f"Android {run.android}"
        )
        return BudgetLine(
            name, shown, f"{value:.1f} ms", "kept" if value <= limit else "missed", basis
        )
    if guess is None:
        basis = f"no phone attached, and its file contains no published latency of {recipe}"
        return BudgetLine(name, shown, NOT_MEASURED, "open", basis)
    low, high = guess
    state: State = "kept" if high <= limit else "missed" if low > limit else "open"
    speeds = [entry.gmac_per_s for entry in phone.published]
    basis = (
        f"published throughputs of {min(speeds):.1f} to {max(speeds):.1f} GMAC/s; no phone attached"
    )
    # "ESTIMATE" is part of the value, since the basis may be cut off on a narrow page.
    return BudgetLine(name, shown, f"ESTIMATE {low:.1f} to {high:.1f} ms", state, basis)


def _baseline(facts: ModelFacts, limit: float) -> BudgetLine:
    name, shown = "F1 against the baseline", f"at most {limit:g} below"
    if facts.f1 is None or facts.baseline_f1 is None:
        return BudgetLine(
            name,
            shown,
            NOT_MEASURED,
            "open",
            "the baseline was not trained" if facts.f1 is not None else NOT_MEASURED,
        )
    state: State = "kept" if facts.baseline_f1 - facts.f1 <= limit else "missed"
    return BudgetLine(
        name, shown, f"{facts.f1:.3f} against {facts.baseline_f1:.3f}", state, "test photos"
    )


def _operators(names: Sequence[str], allowed: Sequence[str]) -> BudgetLine:
    others = sorted(set(names) - set(allowed))
    shown = f"{plural(len(allowed), 'operator')} allowed"
    value = f"not allowed: {', '.join(others)}" if others else f"{len(set(names))}, all allowed"
    return BudgetLine("operators", shown, value, "missed" if others else "kept", "the file")
