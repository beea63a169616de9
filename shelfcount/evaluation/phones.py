"""May the model go onto this phone? Its budget, line by line, against what was measured or can be estimated.

Latency on a phone comes from that phone. Where none is attached it is estimated from the model's work and from
throughputs that others published for it: a range, called an estimate wherever it is shown, and never in one field
with a measurement.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError

from shelfcount.deploy import flatbuffer
from shelfcount.evaluation import adb
from shelfcount.evaluation.adb import PhoneRun
from shelfcount.records import ShelfcountError
from shelfcount.runtime.bundle import Bundle

State = Literal["kept", "missed", "open"]
NOT_MEASURED = "not measured"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Section):
    """What a model may cost on a phone; what is left out is not judged."""

    size_mb: PositiveFloat | None = Field(
        default=None, description="Most megabytes (10^6 bytes) of model.tflite."
    )
    latency_ms: PositiveFloat | None = Field(
        default=None, description="Longest median time of one photo, network and suppression."
    )
    memory_mb: PositiveFloat | None = Field(
        default=None, description="Most megabytes that loading and running it takes."
    )
    f1_below_baseline: NonNegativeFloat | None = Field(
        default=None, description="Most F1 that it may lack against the baseline."
    )
    int8_drop: NonNegativeFloat | None = Field(
        default=None, description="Most F1 lost from PyTorch to the file, on validation photos."
    )
    operators: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The only operators that the file may hold."
    )


class Published(_Section):
    """A latency that others published for this phone, in int8: work over time is the throughput it reached."""

    network: str
    mmac: PositiveFloat = Field(description="Millions of multiply-accumulates of one pass.")
    ms: PositiveFloat
    source: str = Field(min_length=1, description="Where both numbers stand.")

    @property
    def gmac_per_s(self) -> float:
        return self.mmac / self.ms


class Phone(_Section):
    """A phone, or another small computer, and what a model may cost there."""

    name: str = Field(min_length=1)
    model: str = Field(
        default="",
        description="ro.product.model, by which adb knows it; empty where it runs no Android.",
    )
    threads: int = Field(default=1, ge=1)
    cores: str = Field(
        default="",
        pattern=r"^[0-9a-fA-F]*$",
        description="Hexadecimal mask of the cores to measure on; empty for all.",
    )
    budget: Budget
    published: tuple[Published, ...] = Field(
        default=(), description="For the estimate where no phone is attached."
    )


@dataclass(frozen=True)
class Figures:
    """What is known of a model apart from the phone; None is 'not measured'.

    Attributes:
        size: Bytes of model.tflite.
        macs: Multiply-accumulates of one pass.
        operators: Names of the file's operators, each once.
        recipe: Of the file; what is published of phones is of int8.
        memory_mb: That loading and running it took on the computer that measured it.
        f1, baseline_f1: Of the model and the baseline on the same test photos.
        float_f1, int8_f1: Before and after quantization, on the same validation photos.
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
class Line:
    """One line of a budget.

    Attributes:
        name: What is judged.
        budget, got: In words, with units.
        state: 'open' where it was not measured, or an estimate reaches to both sides of the budget.
        basis: Where `got` comes from.
    """

    name: str
    budget: str
    got: str
    state: State
    basis: str

    def __str__(self) -> str:
        return f"{self.state:6} {self.name}: {self.got}, budget {self.budget} ({self.basis})"


@dataclass(frozen=True)
class Verdict:
    """A model against the budget of one phone.

    Attributes:
        phone: Its name.
        lines: One for each line of the budget.
        measured: Of this phone, or None.
        estimate_ms: (shortest, longest) by published throughputs, or None where it was measured or nothing is published.
        sources: Of the estimate.
    """

    phone: str
    lines: tuple[Line, ...]
    measured: PhoneRun | None
    estimate_ms: tuple[float, float] | None
    sources: tuple[str, ...]

    @property
    def missed(self) -> bool:
        """Whether a line of the budget is not kept; open lines are not missed."""
        return any(line.state == "missed" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings; a measurement and an estimate have fields of their own."""
        return {
            "phone": self.phone,
            "missed": self.missed,
            "lines": [asdict(line) for line in self.lines],
            "latency_measured": self.measured and self.measured.to_json(),
            "latency_estimate": self.estimate_ms
            and {"ms": list(self.estimate_ms), "sources": list(self.sources)},
        }


def read(paths: Sequence[Path]) -> list[Phone]:
    """Phones from TOML files.

    Raises:
        ShelfcountError: If a file cannot be read, or a key or value is not allowed; or two phones have one name.
    """
    phones = [_read(path) for path in paths]
    names = [phone.name for phone in phones]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ShelfcountError(
            f"phones must have names of their own, got {', '.join(double)} more than once"
        )
    return phones


def _read(path: Path) -> Phone:
    try:
        return Phone.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ShelfcountError(f"cannot read phone '{path}': {error}") from error
    except ValidationError as error:
        problems = [(".".join(map(str, problem["loc"])), problem) for problem in error.errors()]
        lines = [
            f"  {key}: {problem['msg']}, got {problem['input']!r}" for key, problem in problems
        ]
        raise ShelfcountError(f"phone '{path}' cannot be used:\n" + "\n".join(lines)) from error


def figures(
    bundle: Bundle, *, f1: float | None = None, baseline_f1: float | None = None, memory_mb: float | None = None
) -> Figures:  # fmt: skip
    """What a bundle's files tell, with what was measured of it."""
    model = (bundle.path / "model.tflite").read_bytes()
    measured = bundle.measured
    return Figures(
        size=len(model),
        macs=flatbuffer.count_macs(model),
        operators=tuple(sorted(set(flatbuffer.operator_names(model)))),
        recipe=bundle.recipe,
        memory_mb=memory_mb,
        f1=f1,
        baseline_f1=baseline_f1,
        float_f1=measured.get("f1_pytorch"),
        int8_f1=measured.get("f1"),
    )


def measure(
    phones: Sequence[Phone], bundle: Bundle, binary: Path | None, serial: str | None
) -> list[PhoneRun]:
    """Latency on the attached phone, once for each of its files, with the threads and cores that the file asks for.

    Args:
        phones: One or more of them are the attached one.
        bundle: Its main artifact is run.
        binary: benchmark_model for the phone; None for no measurement.
        serial: Where several phones are attached.

    Raises:
        ShelfcountError: As `adb.choose` and `adb.measure` do; if the options do not fit each other, or the attached
            phone is none of those given.
    """
    if binary is None:
        if serial is not None:
            raise ShelfcountError(
                f"--adb-serial needs --adb-binary, LiteRT's benchmark_model, got '{serial}' alone"
            )
        return []
    if not phones:
        raise ShelfcountError(
            "--adb-binary needs --phone, whose budget the measurement is for, got none"
        )
    chosen = adb.choose(serial)
    model = adb.phone_model(chosen)
    there = [phone for phone in phones if phone.model == model]
    if not there:
        known = ", ".join(f"'{phone.model}'" for phone in phones if phone.model) or "none"
        raise ShelfcountError(
            f"the attached phone must be one of those given with --phone, by its `model` ({known}), got '{model}'"
        )
    return [
        adb.measure(
            bundle.path / "model.tflite", binary, chosen, threads=phone.threads, cores=phone.cores
        )
        for phone in there
    ]


def judge(
    phones: Sequence[Phone], figures: Figures, runs: Sequence[PhoneRun] = ()
) -> list[Verdict]:
    """A verdict for each phone; a measurement counts for the phone, threads and cores of its own, all else is estimated."""
    measured = {(run.model, run.threads, run.cores): run for run in runs}
    return [
        _judge(phone, figures, measured.get((phone.model, phone.threads, phone.cores)))
        for phone in phones
    ]


def estimate(phone: Phone, macs: int) -> tuple[float, float] | None:
    """(shortest, longest) milliseconds of so much work at the throughputs published for a phone; None where none is.

    Convolutions alone are counted: suppression and the rest come on top.
    """
    speeds = [entry.gmac_per_s for entry in phone.published]
    return (macs / 1e6 / max(speeds), macs / 1e6 / min(speeds)) if speeds else None


def _judge(phone: Phone, got: Figures, run: PhoneRun | None) -> Verdict:
    budget = phone.budget
    lines = []
    guess = estimate(phone, got.macs) if run is None and got.recipe == "int8" else None
    if budget.size_mb is not None:
        lines.append(_most("size", got.size / 1e6, budget.size_mb, "{:.2f} MB", "the file"))
    if budget.latency_ms is not None:
        lines.append(_latency(phone, budget.latency_ms, run, guess, got.recipe))
    if budget.memory_mb is not None:
        there = run.timings.memory_mb if run else None
        where = (
            f"measured on {run.model}"
            if run and there is not None
            else "the computer that ran bench, not the phone"
        )
        lines.append(
            _most(
                "memory",
                got.memory_mb if there is None else there,
                budget.memory_mb,
                "{:.1f} MB",
                where,
            )
        )
    if budget.f1_below_baseline is not None:
        lines.append(_baseline(got, budget.f1_below_baseline))
    if budget.int8_drop is not None:
        # Bundles keep four decimals of each.
        drop = (
            None
            if got.float_f1 is None or got.int8_f1 is None
            else round(got.float_f1 - got.int8_f1, 4)
        )
        lines.append(
            _most(
                f"F1 lost on the way to {got.recipe}",
                drop,
                budget.int8_drop,
                "{:.4f}",
                "validation photos, at export",
            )
        )
    if budget.operators is not None:
        lines.append(_operators(got.operators, budget.operators))
    sources = tuple(dict.fromkeys(entry.source for entry in phone.published)) if guess else ()
    rounded = (round(guess[0], 1), round(guess[1], 1)) if guess else None
    return Verdict(phone.name, tuple(lines), run, rounded, sources)


def _most(name: str, got: float | None, most: float, form: str, basis: str) -> Line:
    shown = f"at most {form.format(most)}"
    if got is None:
        return Line(name, shown, NOT_MEASURED, "open", NOT_MEASURED)
    return Line(name, shown, form.format(got), "kept" if got <= most else "missed", basis)


def _latency(
    phone: Phone, most: float, run: PhoneRun | None, guess: tuple[float, float] | None, recipe: str
) -> Line:
    name, shown = (
        f"latency, {phone.threads} thread{'s' if phone.threads > 1 else ''}",
        f"at most {most:g} ms",
    )
    if run is not None:
        timings = run.timings
        value, kind = (
            (timings.p50_ms, "median") if timings.p50_ms is not None else (timings.mean_ms, "mean")
        )
        basis = f"measured: {kind} of {timings.runs} runs on {run.model}, {run.chip}, Android {run.android}"
        return Line(name, shown, f"{value:.1f} ms", "kept" if value <= most else "missed", basis)
    if guess is None:
        return Line(
            name,
            shown,
            NOT_MEASURED,
            "open",
            f"no phone attached, and its file holds no published throughput of {recipe}",
        )
    low, high = guess
    state: State = "kept" if high <= most else "missed" if low > most else "open"
    speeds = [entry.gmac_per_s for entry in phone.published]
    basis = (
        f"published throughputs of {min(speeds):.1f} to {max(speeds):.1f} GMAC/s; no phone attached"
    )
    # Where there is little room, the basis is what a page cuts off first.
    return Line(name, shown, f"ESTIMATE {low:.1f} to {high:.1f} ms", state, basis)


def _baseline(got: Figures, most: float) -> Line:
    name, shown = "F1 against the baseline", f"at most {most:g} below"
    if got.f1 is None or got.baseline_f1 is None:
        return Line(
            name,
            shown,
            NOT_MEASURED,
            "open",
            "the baseline was not trained" if got.f1 is not None else NOT_MEASURED,
        )
    state: State = "kept" if got.baseline_f1 - got.f1 <= most else "missed"
    return Line(name, shown, f"{got.f1:.3f} against {got.baseline_f1:.3f}", state, "test photos")


def _operators(got: Sequence[str], allowed: Sequence[str]) -> Line:
    others = sorted(set(got) - set(allowed))
    shown = f"{len(allowed)} operators"
    said = f"also {', '.join(others)}" if others else f"{len(set(got))}, no others"
    return Line("operators", shown, said, "missed" if others else "kept", "the file")
