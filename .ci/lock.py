"""Pin what the project and its developers' tools need, at the versions installed here: ``make lock``.

`pip freeze` would pin whatever else lies in the environment too; this walks the requirements of
pyproject.toml, with the extras and markers that hold on this machine.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# `tensorflow` serves contract tests and lives in an environment of its own.
EXTRAS = ("train", "export", "ray", "dev")


def stated(project: dict) -> list[str]:
    """What pyproject.toml asks for, to build, to run and to develop."""
    optional = project["project"]["optional-dependencies"]
    return [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(r for extra in EXTRAS for r in optional[extra]),
    ]


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Name to version of every distribution that the requirements lead to.

    Raises:
        LookupError: If one is not installed, or is installed in a version that does not fit.
    """
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "pyproject.toml") for text in requirements]
    while todo:
        wanted, by = todo.pop()
        try:
            distribution = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError as error:
            raise LookupError(
                f"'{wanted}' of {by} must be installed to be pinned. Install it and lock again."
            ) from error
        if not wanted.specifier.contains(distribution.version, prereleases=True):
            raise LookupError(
                f"{by} wants '{wanted}', got version {distribution.version} installed. Install one that fits and lock again."
            )
        pins[canonicalize_name(wanted.name)] = distribution.version
        for extra in {"", *wanted.extras}:
            if (wanted.name, extra) in seen:
                continue
            seen.add((wanted.name, extra))
            found = [Requirement(text) for text in distribution.requires or ()]
            todo += [
                (r, wanted.name)
                for r in found
                if r.marker is None or r.marker.evaluate({"extra": extra})
            ]
    return pins


def main() -> int:
    """Write requirements.lock; 1 if the environment does not hold what is to be pinned."""
    try:
        pins = closure(stated(tomllib.loads((ROOT / "pyproject.toml").read_text())))
    except LookupError as error:
        print(error, file=sys.stderr)
        return 1
    (ROOT / "requirements.lock").write_text(
        "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    )
    print(f"requirements.lock: {len(pins)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
