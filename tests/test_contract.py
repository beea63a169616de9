"""Promises to apps: a bundle that keeps them has no breach, and each breach is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shelfcount.deploy import contract, flatbuffer
from shelfcount.runtime.bundle import Bundle, read_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def broken(bundle: Path, tmp_path: Path) -> Callable[[str, Callable[[Any], None]], list[str]]:
    """Breaches of a copy of the bundle of which one file was edited as a model; sha256 are not looked at here."""

    def after(name: str, edit: Callable[[Any], None]) -> list[str]:
        folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
        data = (folder / name).read_bytes()
        model = flatbuffer.read(data)
        edit(model)
        # What lies behind the flatbuffer, the zip, goes along.
        (folder / name).write_bytes(
            flatbuffer.write(model) + data[len(flatbuffer.write(flatbuffer.read(data))) :]
        )
        return contract.breaches(moved(read_bundle(bundle), folder))

    return after


def moved(opened: Bundle, folder: Path) -> Bundle:
    return replace(opened, path=folder)


def test_a_bundle_as_exported_keeps_every_promise(bundle: Path) -> None:
    assert contract.breaches(read_bundle(bundle)) == []


def test_breaches_of_the_main_artifact_are_named(broken: Callable[..., list[str]]) -> None:
    def rename(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.outputs[0]].name = b"boxes"
        model.metadata = []

    found = broken("model.tflite", rename)
    assert any(
        b.startswith("model.tflite: the outputs must be location FLOAT32 [1, 300, 4]; ")
        and "got boxes FLOAT32" in b
        for b in found
    )
    assert any("there is no TFLite metadata" in b for b in found)


def test_a_lost_postprocessing_is_named(broken: Callable[..., list[str]]) -> None:
    def cut(model: Any) -> None:
        graph = model.subgraphs[0]
        operator = graph.operators.pop()
        graph.outputs = list(operator.inputs[:2])
        model.signatureDefs = []

    found = broken("model.tflite", cut)
    assert any(
        "the last operator must be TFLite_Detection_PostProcess, got DEQUANTIZE" in b for b in found
    )


def test_an_artifact_for_delegates_must_hold_raw_heads(
    broken: Callable[..., list[str]], bundle: Path
) -> None:
    found = broken(
        "model-raw.tflite",
        lambda model: setattr(model, "operatorCodes", flatbuffer.read(_main(bundle)).operatorCodes),
    )
    assert any(
        "model-raw.tflite: there must be no custom operator, got TFLite_Detection_PostProcess" in b
        for b in found
    )


def _main(bundle: Path) -> bytes:
    return (bundle / "model.tflite").read_bytes()


def test_missing_and_unreadable_files_are_named(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (folder / "model-raw.tflite").unlink()
    (folder / "model.tflite").write_bytes(b"not a model")
    found = contract.breaches(moved(read_bundle(bundle), folder))
    assert any(b.startswith("model.tflite cannot be read as a model") for b in found)
    assert "model-raw.tflite is missing" in found


def test_labels_inside_of_another_length_are_named(bundle: Path) -> None:
    opened = read_bundle(bundle)
    other = replace(opened, spec=replace(opened.spec, classes=(*opened.spec.classes, "chalk")))
    assert any(
        "its own labels.txt must list the 4 classes of model.json in their order, got 3 lines" in b
        for b in contract.breaches(other)
    )
