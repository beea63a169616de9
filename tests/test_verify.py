"""Contract checks: an exported bundle has no breach, and every breach is reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shelfcount.deploy import flatbuffer, verify
from shelfcount.runtime.bundle import Bundle, read_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def broken(bundle: Path, tmp_path: Path) -> Callable[[str, Callable[[Any], None]], list[str]]:
    """Return a function that edits one model of a copied bundle and returns the breaches.

    The checksums are not checked.
    """

    def after(name: str, edit: Callable[[Any], None]) -> list[str]:
        folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
        data = (folder / name).read_bytes()
        model = flatbuffer.read_model(data)
        edit(model)
        # The zip archive after the flatbuffer is kept.
        (folder / name).write_bytes(
            flatbuffer.write_model(model)
            + data[len(flatbuffer.write_model(flatbuffer.read_model(data))) :]
        )
        return verify.contract_violations(moved(read_bundle(bundle), folder))

    return after


def moved(opened: Bundle, folder: Path) -> Bundle:
    return replace(opened, path=folder)


def test_an_exported_bundle_has_no_breach(bundle: Path) -> None:
    assert verify.contract_violations(read_bundle(bundle)) == []


def test_breaches_of_the_main_artifact_are_reported(broken: Callable[..., list[str]]) -> None:
    def rename(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.outputs[0]].name = b"boxes"
        model.metadata = []

    found = broken("model.tflite", rename)
    assert any(
        b.startswith("model.tflite: the outputs are boxes FLOAT32 [1, 300, 4]; ")
        and "but must be location FLOAT32 [1, 300, 4]; " in b
        for b in found
    )
    assert any("TFLite metadata is missing" in b for b in found)


def test_a_missing_postprocessing_is_reported(broken: Callable[..., list[str]]) -> None:
    def cut(model: Any) -> None:
        graph = model.subgraphs[0]
        operator = graph.operators.pop()
        graph.outputs = list(operator.inputs[:2])
        model.signatureDefs = []

    found = broken("model.tflite", cut)
    assert any(
        "the last operator is DEQUANTIZE, but must be TFLite_Detection_PostProcess" in b
        for b in found
    )


def test_a_custom_operator_in_the_artifact_for_delegates_is_reported(
    broken: Callable[..., list[str]], bundle: Path
) -> None:
    found = broken(
        "model-raw.tflite",
        lambda model: setattr(
            model, "operatorCodes", flatbuffer.read_model(_main(bundle)).operatorCodes
        ),
    )
    assert any(
        "model-raw.tflite: custom operators are not allowed in this file, "
        "but it contains TFLite_Detection_PostProcess" in b
        for b in found
    )


def _main(bundle: Path) -> bytes:
    return (bundle / "model.tflite").read_bytes()


def test_missing_and_unreadable_files_are_reported(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (folder / "model-raw.tflite").unlink()
    (folder / "model.tflite").write_bytes(b"not a model")
    found = verify.contract_violations(moved(read_bundle(bundle), folder))
    assert any(b.startswith("model.tflite cannot be read as a .tflite model") for b in found)
    assert "model-raw.tflite is missing" in found


def test_embedded_labels_of_other_classes_are_reported(bundle: Path) -> None:
    opened = read_bundle(bundle)
    other = replace(opened, spec=replace(opened.spec, classes=(*opened.spec.classes, "chalk")))
    assert any(
        "the embedded labels.txt has 3 lines and does not list the 4 classes of model.json in their"
        in b
        for b in verify.contract_violations(other)
    )
