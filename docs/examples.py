"""Run the code blocks of README and docs that are marked as tested.

A block is tested if the line before its fence is ``<!-- tested -->``. What it may be:

* ``console``: lines that begin with ``$ shelfcount``, each followed by what it prints to stdout. A
  line ``...`` stands for any number of lines.
* ``python``: runs without an exception. Variables stay for the next block of the page.
* ``toml``: a configuration that `shelfcount train` accepts.

The blocks of a page run in order, in one empty folder that `fill` fills with photos and labels.
``python docs/examples.py`` compares what README and docs show with what the commands print, and
``python docs/examples.py --write`` replaces what they show. Both also treat the JSON schema of
planograms, which the package generates.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from shelfcount.shelf.planogram import plan_schema

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "export" / "release" / "drinks-int8"
PLAN_SCHEMA = ROOT / "docs" / "reference" / "schemas" / "plan.schema.json"
BLOCK = re.compile(
    r"^<!-- tested -->\n```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# The commands print tables as wide as the terminal; this width fits a page.
WIDTH = "88"


@dataclass(frozen=True)
class Example:
    """One marked block of a page.

    Attributes:
        kind: Language of the fence.
        text: What the block contains.
        span: Place of `text` in the page.
    """

    kind: str
    text: str
    span: tuple[int, int]


def pages() -> list[Path]:
    """Return README.md and every page that is written by hand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: str) -> list[Example]:
    """Return the marked blocks of a page in their order."""
    return [Example(m["kind"], m["text"], m.span("text")) for m in BLOCK.finditer(page)]


def fill(folder: Path) -> None:
    """Put into a folder what the examples use: the released bundle, photos and labels.

    The photos are the golden photos of the bundle. ``left.jpg`` and ``right.jpg`` show the same
    cooler and overlap. ``test/labels.json`` is the ground truth of the golden photos as COCO, and
    ``test/draft.json`` the same with planted errors: of ten labels, one is missing and one has a
    wrong class.
    """
    shutil.copytree(BUNDLE, folder / "drinks-int8")
    golden = json.loads((BUNDLE / "golden" / "golden.json").read_text(encoding="utf-8"))
    classes = (BUNDLE / "labels.txt").read_text(encoding="utf-8").splitlines()
    (folder / "test").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(golden["photos"], start=1):
        shutil.copy(BUNDLE / "golden" / photo["file"], folder / "test")
        size = {"width": photo["width"], "height": photo["height"]}
        images.append({"id": number, "file_name": photo["file"], **size})
        for label in photo["truth"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(label["class"]) + 1,
                    "bbox": label["box"],
                    "area": label["box"][2] * label["box"][3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "test" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    planted = [
        {**label, "category_id": label["category_id"] % len(classes) + 1} if i % 10 == 5 else label
        for i, label in enumerate(annotations)
        if i % 10 != 0
    ]
    draft = {**labels, "annotations": planted}
    (folder / "test" / "draft.json").write_text(json.dumps(draft), encoding="utf-8")
    first = folder / "test" / golden["photos"][0]["file"]
    shutil.copy(first, folder / "photo.jpg")
    cooler = cv2.imread(str(first))
    cut = cooler.shape[1] // 3
    cv2.imwrite(str(folder / "left.jpg"), cooler[:, :-cut], [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.imwrite(str(folder / "right.jpg"), cooler[:, cut:], [cv2.IMWRITE_JPEG_QUALITY, 95])


def run_page(page: str, folder: Path) -> Iterator[tuple[Example, str]]:
    """Run the marked blocks of a page in a filled folder.

    Yields:
        Each block, and what it must contain.

    Raises:
        ValueError: If a block has an unknown kind or a command that is not tested.
        RuntimeError: If a Python block or a configuration fails.
    """
    code: list[str] = []
    for example in examples(page):
        actual = example.text
        if example.kind == "console":
            actual = _run_console(example.text, folder)
        elif example.kind == "python":
            code.append(example.text)
            _python("\n".join(code), folder)
        elif example.kind == "toml":
            (folder / "tested.toml").write_text(example.text, encoding="utf-8")
            tomllib.loads(example.text)
            _python("from pathlib import Path\n" + _READ_CONFIG, folder)
        else:
            raise ValueError(f"a tested block must be console, python or toml, got {example.kind}")
        yield example, actual


_READ_CONFIG = """\
from shelfcount.config import load_config
load_config(Path("tested.toml"))
"""


def _run_console(text: str, folder: Path) -> str:
    shown: list[str] = []
    # A command continues on the next line after a backslash; its output ends at the next one.
    for part in re.split(r"^(?=\$ )", text, flags=re.MULTILINE):
        if not part:
            continue
        command = re.match(r"\$ (?:[^\n]*\\\n)*[^\n]*\n", part)
        if command is None:
            raise ValueError(f"a console block must begin with '$ ', got {part!r}")
        words = shlex.split(command[0].replace("\\\n", " ")[2:])
        if words[0] != "shelfcount":
            raise ValueError(f"only shelfcount is run, got {words[0]!r}")
        output = _python_module(words[1:], folder)
        shown.append(command[0] + _elided(output, part[command.end() :]))
    return "".join(shown)


def _elided(output: str, expected: str) -> str:
    """Return the output with the same lines left out as in `expected`."""
    lines, wanted = output.splitlines(), expected.splitlines()
    if "..." not in wanted:
        return output
    place = wanted.index("...")
    first, last = lines[:place], lines[max(place, len(lines) - (len(wanted) - place - 1)) :]
    return "\n".join([*first, "...", *last]) + "\n"


def _python_module(arguments: list[str], folder: Path) -> str:
    done = _subprocess([sys.executable, "-m", "shelfcount", *arguments], folder)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"shelfcount {shlex.join(arguments)}: {done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def _python(code: str, folder: Path) -> None:
    done = _subprocess([sys.executable, "-c", code], folder)
    if done.returncode != 0:
        raise RuntimeError(f"{code}\n{done.stderr}")


def _subprocess(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "COLUMNS": WIDTH,
        "NO_COLOR": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


def plan_schema_text() -> str:
    """Return the text of plan.schema.json, which the package generates."""
    return json.dumps(plan_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Compare or, with --write, replace; 1 if a page differs from what the commands print."""
    write = "--write" in sys.argv[1:]
    changed = []
    if PLAN_SCHEMA.read_text(encoding="utf-8") != plan_schema_text():
        changed.append(PLAN_SCHEMA)
        if write:
            PLAN_SCHEMA.write_text(plan_schema_text(), encoding="utf-8")
    for path in pages():
        page = new = path.read_text(encoding="utf-8")
        if not examples(page):
            continue
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder))
            for example, actual in reversed(list(run_page(page, Path(folder)))):
                new = new[: example.span[0]] + actual + new[example.span[1] :]
        if new != page:
            changed.append(path)
            if write:
                path.write_text(new, encoding="utf-8")
    for path in changed:
        print(f"{path.relative_to(ROOT)}: {'written' if write else 'differs, use --write'}")
    return 1 if changed and not write else 0


if __name__ == "__main__":
    sys.exit(main())
