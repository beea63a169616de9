"""The Android and iOS samples: what can be held to account without building them.

They read the files that this package writes, name one version of MediaPipe, and say where each call
they make was looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shelfcount.deploy import golden
from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo
from shelfcount.runtime.bundle import FORMAT

ROOT = Path(__file__).parents[1]
EXPORT = ROOT / "export"
SOURCES = (
    "android/ShelfCounter.kt",
    "android/GoldenTest.kt",
    "android/build.gradle.kts",
    "ios/ShelfCounter.swift",
    "ios/GoldenTests.swift",
    "ios/Podfile",
)
READMES = ("android/README.md", "ios/README.md")
SPEC = ModelSpec(
    "tiny", "mobilenet_v2_050", ("cola", "tea"), 64, 64, (AnchorLevel(8, ((20.0, 10.0),)),)
)

# Of the language, not of a library that would have to be looked up.
SWIFT_ITSELF = {
    "Bool",
    "Decodable",
    "Data",
    "Dictionary",
    "Equatable",
    "Error",
    "Float",
    "Int",
    "LocalizedError",
    "Self",
    "String",
    "URL",
}


def source(name: str) -> str:
    return (EXPORT / name).read_text()


def code(name: str) -> str:
    """A source without its comments and the insides of its strings."""
    without_strings = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', source(name))
    return re.sub(r"//.*|/\*.*?\*/|^\s*#.*", "", without_strings, flags=re.MULTILINE)


def fields_read(name: str) -> set[str]:
    """Names of JSON fields that a sample reads."""
    if name.endswith(".kt"):
        return set(
            re.findall(r'\.get(?:Int|Double|String|JSONObject|JSONArray)\("(\w+)"\)', source(name))
        )
    records = re.findall(
        r"^private struct \w+: Decodable \{\n(.*?)^\}", source(name), re.DOTALL | re.MULTILINE
    )
    camel = re.findall(r"let `?(\w+)`?: ", "".join(records))
    return {re.sub("([A-Z])", lambda m: "_" + m[1].lower(), field) for field in camel}


def fields(document: Any) -> Iterator[str]:
    """Names of all fields in a JSON document, at any depth."""
    if isinstance(document, dict):
        yield from document
    for part in (
        document.values()
        if isinstance(document, dict)
        else document
        if isinstance(document, list)
        else ()
    ):
        yield from fields(part)


@pytest.fixture
def golden_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """golden.json as the package writes it."""

    class Finder:
        def __init__(self, model: bytes, spec: ModelSpec, score_threshold: float) -> None:
            self.spec = spec

        def detect_stretched(self, pixels: np.ndarray, width: int, height: int) -> Detections:
            return Detections([[5, 5, 15, 25]], [1], [0.9])

        def detect(self, image: np.ndarray) -> Detections:
            return self.detect_stretched(image, image.shape[1], image.shape[0])

    # The one thing the writer needs and this test has not is a trained network.
    monkeypatch.setattr(golden, "LiteRTDetector", Finder)
    cv2.imwrite(str(tmp_path / "shelf.jpg"), np.full((64, 64, 3), 90, np.uint8))
    photo = Photo(tmp_path / "shelf.jpg", 64, 64, Detections([[5, 5, 15, 25]], [1]))
    return json.loads(
        golden.make_golden(b"", SPEC, Dataset(SPEC.classes, (photo,)))["golden/golden.json"]
    )


@pytest.mark.parametrize("name", ["android/ShelfCounter.kt", "ios/ShelfCounter.swift"])
def test_options_come_from_model_json(name: str) -> None:
    written = {"format": FORMAT, "spec": SPEC.to_json()}
    assert fields_read(name) == {"format", "spec", "score_threshold", "max_detections"}
    assert fields_read(name) <= set(fields(written))


@pytest.mark.parametrize("name", ["android/GoldenTest.kt", "ios/GoldenTests.swift"])
def test_golden_fields_are_written(name: str, golden_json: dict[str, Any]) -> None:
    read = fields_read(name)
    assert read == {
        "score_threshold",
        "tolerance",
        "iou",
        "score",
        "photos",
        "file",
        "width",
        "height",
        "detections",
        "class",
        "box",
    }
    assert read <= set(fields(golden_json))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("android/ShelfCounter.kt", r"FORMAT = (\d+)"), ("ios/ShelfCounter.swift", r"known = (\d+)")],
)
def test_format_is_the_one_written(name: str, pattern: str) -> None:
    assert re.findall(pattern, source(name)) == [str(FORMAT)]


def test_one_version_of_mediapipe() -> None:
    (gradle,) = re.findall(
        r'"com\.google\.mediapipe:tasks-vision:([\d.]+)"', source("android/build.gradle.kts")
    )
    (pod,) = re.findall(r"pod 'MediaPipeTasksVision', '([\d.]+)'", source("ios/Podfile"))
    (tested,) = re.findall(r"mediapipe==([\d.]+)", (ROOT / ".ci" / "consumers").read_text())
    assert gradle == pod
    for readme in READMES:
        assert f"| {gradle} |" in source(readme)
        assert f"MediaPipe {tested} for Python" in source(readme)


@pytest.mark.parametrize("name", SOURCES)
def test_brackets_balance(name: str) -> None:
    opened: list[str] = []
    for number, line in enumerate(code(name).splitlines(), start=1):
        for bracket in re.findall(r"[()\[\]{}]", line):
            if bracket in "([{":
                opened.append(bracket)
            else:
                assert opened, f"{name}:{number}: '{bracket}' closes nothing"
                assert opened.pop() + bracket in ("()", "[]", "{}"), (
                    f"{name}:{number}: '{bracket}' closes another bracket"
                )
    assert opened == []


@pytest.mark.parametrize("readme", READMES)
def test_readme_says_that_nothing_was_built(readme: str) -> None:
    assert "**Nothing here was built or run" in source(readme)
    targets = re.findall(r"\]\(([^)#\s]+)\)", source(readme))
    assert [t for t in targets if not (EXPORT / readme).parent.joinpath(t).exists()] == []


def test_android_calls_were_looked_up() -> None:
    imported = {
        path
        for name in SOURCES[:2]
        for path in re.findall(
            r"^import ((?:com\.google|androidx|android|org\.json)\.[\w.]+)",
            source(name),
            re.MULTILINE,
        )
    }
    platform = {"Context", "Bitmap", "RectF"}
    named = set(re.findall(r"`(\w+)`", source("android/README.md").split("## Checked against")[1]))
    assert {path.split(".")[-1] for path in imported} - platform - named == set()


def test_ios_calls_were_looked_up() -> None:
    text = code("ios/ShelfCounter.swift") + code("ios/GoldenTests.swift")
    declared = set(re.findall(r"\b(?:struct|class) (\w+)", text)) | set(
        re.findall(r"^(?:@testable )?import (\w+)", text, re.MULTILINE)
    )
    named = set(re.findall(r"`(\w+)`", source("ios/README.md").split("## Checked against")[1]))
    assert set(re.findall(r"\b[A-Z]\w+", text)) - declared - SWIFT_ITSELF - named == set()
