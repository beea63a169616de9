"""Run all steps from photos to a counted shelf on synthetic photos, for ``make demo``.

The demo only runs public commands, one after the other, and prints each before it runs.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from shelfcount.files import write_json
from shelfcount.stamp import stamp
from shelfcount.words import duration_words

CONFIG = Path(__file__).parent / "configs" / "demo.toml"
# Only a folder that contains this file is removed.
MARKER = ".made-by-make-demo"


@dataclass(frozen=True)
class Stage:
    """One step of the demo.

    Attributes:
        title: Description for the user.
        minutes: Approximate time on 2 cores.
        commands: Arguments of one or several ``shelfcount`` commands.
    """

    title: str
    minutes: float
    commands: tuple[tuple[str, ...], ...]


def stages(folder: Path, short: bool) -> list[Stage]:
    """Return the stages of the demo.

    Args:
        folder: Folder that all files are written to.
        short: Use few photos, one epoch and a small input, only to test that every stage runs.
    """
    photos = {"train": 6, "val": 2, "test": 2} if short else {"train": 160, "val": 24, "test": 24}
    # All sets share the catalogue, and so the products. Each has its own seed, so that no shelf is
    # in two sets.
    synth = [
        (
            "synth",
            "--out",
            f"{folder / name}",
            "--photos",
            f"{number}",
            "--classes",
            "12",
            "--catalogue-seed",
            "1",
            "--seed",
            f"{seed}",
        )
        for seed, (name, number) in enumerate({**photos, "unseen": 1}.items(), start=1)
    ]
    labels = {name: f"{folder / name / 'labels.json'}" for name in photos}
    tiny = (
        ("--set", "train.epochs=1", "--set", "model.height=128", "--set", "model.width=128")
        if short
        else ()
    )
    few = ("--runs", "3", "--baseline-runs", "1") if short else ()
    train = (
        "train",
        "--data",
        labels["train"],
        "--val",
        labels["val"],
        "--config",
        _shown(CONFIG),
        "--out",
        f"{folder / 'run'}",
        *tiny,
    )
    bundle, photo = f"{folder / 'bundle'}", f"{folder / 'unseen' / 'images' / '00000.jpg'}"
    count = (
        "count",
        bundle,
        photo,
        "--json",
        f"{folder / 'counts.json'}",
        "--picture",
        f"{folder / 'counted'}",
    )
    bench = (
        "bench",
        bundle,
        "--baseline",
        "resnet50",
        "--data",
        labels["test"],
        "--photo",
        photo,
        "--out",
        f"{folder / 'report'}",
        *few,
    )
    return [
        Stage("render shelf photos with exact labels", 0.3, tuple(synth)),
        Stage("fine-tune the detector from the weights in the package", 5, (train,)),
        Stage(
            "quantize to int8 and export a bundle for phones",
            0.7,
            (("export", f"{folder / 'run'}", "--out", bundle),),
        ),
        Stage("count the products on a new photo", 0.1, (count,)),
        Stage(
            "compare size and latency with a ResNet-50, measure F1 and write the report",
            0.8,
            (bench,),
        ),
    ]


def make_folder(folder: Path) -> None:
    """Make an empty folder, in place of the folder of an earlier run.

    Raises:
        FileExistsError: If the folder exists and was not made by the demo.
    """
    if folder.exists():
        if not (folder / MARKER).exists():
            raise FileExistsError(
                f"'{folder}' exists and was not made by the demo. "
                "Move it away, or choose another folder with --out."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


def announce(way: list[Stage], short: bool) -> None:
    """Print the stages and the time they take."""
    print(
        f"The demo has {len(way)} stages and takes about {sum(s.minutes for s in way):.0f} minutes "
        "on 2 cores:"
    )
    for number, stage in enumerate(way, start=1):
        time_needed = f"about {stage.minutes:.0f} min" if stage.minutes >= 1 else "under a minute"
        print(f"  {number}. {stage.title}, {time_needed}")
    if short:
        print(
            "This is the short form with few photos and one epoch. It takes a fraction of that "
            "time, and the model is not usable."
        )


def run(stage: Stage) -> float:
    """Print and run the commands of a stage.

    Returns:
        Seconds that the commands took.

    Raises:
        subprocess.CalledProcessError: If a command fails. It has printed the reason itself.
    """
    begin = time.monotonic()
    for command in stage.commands:
        print(f"$ {shlex.join(('shelfcount', *command))}", flush=True)
        subprocess.run([Path(sys.executable).parent / "shelfcount", *command], check=True)
    return time.monotonic() - begin


def main() -> int:
    """Run the demo. Returns the exit status of a command that failed, 2 for misuse, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="Folder to make. Default: demo."
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="Use few photos and one epoch, only to test that every stage runs.",
    )
    given = parser.parse_args()
    try:
        make_folder(given.out)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 2
    way = stages(given.out, given.short)
    announce(way, given.short)
    seconds: dict[str, float] = {}
    for number, stage in enumerate(way, start=1):
        print(f"\n{number} of {len(way)}: {stage.title}")
        try:
            seconds[stage.title] = round(run(stage), 1)
        except subprocess.CalledProcessError as error:
            print(
                f"\nThe demo stops: `{shlex.join(map(str, error.cmd))}` failed with exit status "
                f"{error.returncode}.",
                file=sys.stderr,
            )
            return error.returncode if error.returncode > 0 else 1
        print(f"took {duration_words(seconds[stage.title])}")
    total = round(sum(seconds.values()), 1)
    durations = {"seconds": seconds, "total": total, "short": given.short, "stamp": stamp()}
    write_json(given.out / "durations.json", durations)
    here = _shown(Path(sys.executable).parent / "shelfcount")
    print(
        f"\nThe demo took {total / 60:.1f} minutes. The commands above work on your photos too. "
        f"`shelfcount` is {here}."
    )
    print(f"report: {(given.out / 'report' / 'report.html').resolve()}")
    return 0


def _shown(path: Path) -> str:
    """Return a path, relative to the working folder if it is inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
