"""The whole way on synthetic shelves, for those who want to see it before they bring photos: ``make demo``.

Nothing here but the public commands, one after the other, each printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from shelfcount.stamp import stamp
from shelfcount.vision.images import write_whole

CONFIG = Path(__file__).parent / "configs" / "demo.toml"
# Only a folder that holds it is removed.
MARKER = ".made-by-make-demo"


@dataclass(frozen=True)
class Stage:
    """One command or several of a kind.

    Attributes:
        title: What happens, for people.
        minutes: About how long it takes on 2 cores.
        commands: Arguments of ``shelfcount``.
    """

    title: str
    minutes: float
    commands: tuple[tuple[str, ...], ...]


def stages(folder: Path, short: bool) -> list[Stage]:
    """The way from nothing to a report.

    Args:
        folder: Everything is written below it.
        short: A few photos, one epoch and a small input: shows that every stage runs, and no more.
    """
    photos = {"train": 6, "val": 2, "test": 2} if short else {"train": 160, "val": 24, "test": 24}
    # One catalogue, so that all sets hold the same products, and a seed for each, so that no shelf is in two.
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
        Stage("fine-tune the detector from the weights the package ships", 5, (train,)),
        Stage(
            "quantize to int8 and export for the phone",
            0.7,
            (("export", f"{folder / 'run'}", "--out", bundle),),
        ),
        Stage("count a photo that was never seen", 0.1, (count,)),
        Stage("measure size, latency and F1 against ResNet-50, write the report", 0.8, (bench,)),
    ]


def make_folder(folder: Path) -> None:
    """Remove the last run's folder and make it anew.

    Raises:
        FileExistsError: If it holds something else.
    """
    if folder.exists():
        if not (folder / MARKER).exists():
            raise FileExistsError(
                f"'{folder}' exists and was not made by the demo. Move it away, or choose another folder with --out."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


def announce(way: list[Stage], short: bool) -> None:
    """Say what will happen and for how long."""
    print(
        f"From nothing to a counted shelf in {len(way)} stages, about {sum(s.minutes for s in way):.0f} minutes on 2 cores:"
    )
    for number, stage in enumerate(way, start=1):
        print(
            f"  {number}. {stage.title}, {f'about {stage.minutes:.0f} min' if stage.minutes >= 1 else 'under a minute'}"
        )
    if short:
        print(
            "This is the short form: a few photos and one epoch, a fraction of that time, and nothing learnt."
        )


def run(stage: Stage) -> float:
    """Run the commands of a stage, each printed first; seconds they took.

    Raises:
        subprocess.CalledProcessError: If one fails; it has said why itself.
    """
    begin = time.monotonic()
    for command in stage.commands:
        print(f"$ {shlex.join(('shelfcount', *command))}", flush=True)
        subprocess.run([Path(sys.executable).parent / "shelfcount", *command], check=True)
    return time.monotonic() - begin


def main() -> int:
    """The exit code: 0, that of the command that failed, or 2 for misuse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder to make (default: demo)"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="a few photos and one epoch: shows that every stage runs, and no more",
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
                f"\nThe demo ends here: `{shlex.join(map(str, error.cmd))}` failed with exit code {error.returncode}.",
                file=sys.stderr,
            )
            return error.returncode if error.returncode > 0 else 1
        print(f"took {seconds[stage.title]:.0f} seconds")
    total = round(sum(seconds.values()), 1)
    durations = {"seconds": seconds, "total": total, "short": given.short, "stamp": stamp()}
    write_whole(given.out / "durations.json", json.dumps(durations, indent=1))
    here = _shown(Path(sys.executable).parent / "shelfcount")
    print(
        f"\nAll in {total / 60:.1f} minutes. The commands above work on your photos too: `shelfcount` is {here}"
    )
    print(f"report: {(given.out / 'report' / 'report.html').resolve()}")
    return 0


def _shown(path: Path) -> str:
    """Relative to where the user stands, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
