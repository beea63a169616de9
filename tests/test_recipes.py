"""The scripts that make what is shipped and measured, in their shortest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import distill
import held_back
import pytest
import ssdlite
import torch
from conftest import Shelves
from safetensors.torch import load_file

from shelfcount.data.datasets import align_classes
from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.metrics.scoring import score
from shelfcount.records import AnchorLevel, Dataset, Detections, Photo
from shelfcount.training import distillation
from shelfcount.training.networks import build, retinanet_levels
from shelfcount.training.starting_weights import SHIPPED_FOLDER

ROOT = Path(__file__).parents[1]
LEVELS = (AnchorLevel(8, ((20.0, 10.0),)), AnchorLevel(16, ((40.0, 20.0),)))


def test_behind_stride_8_the_transplanted_backbone_computes_what_its_teacher_does() -> None:
    torch.manual_seed(0)
    teacher, student = (
        build(name, 3, LEVELS, 16).eval() for name in ("mobilenet_v2", "mobilenet_v2_fused")
    )
    distillation.transplant(teacher, student, fused=True)
    features = torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        # Stages 3 and 4 of the teacher correspond to stages 2 and 3 of the student, and the first
        # two blocks of the teacher's stage 5 are the student's stage 4.
        theirs = torch.nn.Sequential(
            teacher.trunk.blocks[3], teacher.trunk.blocks[4], teacher.trunk.blocks[5][:2]
        )(features)
        mine = torch.nn.Sequential(*list(student.trunk.blocks)[2:])(features)
    assert torch.equal(theirs, mine)
    for name in ("laterals.0.0.weight", "classify.predict.weight", "locate.norms.0.1.running_var"):
        assert torch.equal(teacher.state_dict()[name], student.state_dict()[name])


@pytest.mark.parametrize(
    ("member", "shapes"),
    [
        # The fused backbone is fitted at stride 8 first; then each backbone feeds the pyramid with
        # 16 channels at strides 8, 16 and 32.
        ("mobilenet_v2_fused", [[(1, 32, 8, 12)], [(1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3)]]),
        ("mobilenet_v4_s", [[(1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3)]]),
        # 16 of the 256 that its pyramid is fed with.
        ("resnet50", [[(1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3)]]),
    ],
)
def test_teacher_and_student_give_what_can_be_compared(
    member: str, shapes: list[list[tuple[int, ...]]]
) -> None:
    levels = retinanet_levels() if member == "resnet50" else LEVELS
    teacher, student = (
        build("mobilenet_v2", 3, LEVELS, 16).eval(),
        build(member, 3, levels, 16).eval(),
    )
    taught = distillation.lessons(teacher, student, len(shapes) == 2, 16, 1, 1e-3)
    with torch.no_grad():
        for half in ("teacher", "learned"):
            found = [
                [tuple(f.shape) for f in getattr(lesson, half)(torch.zeros(1, 3, 64, 96))]
                for lesson in taught
            ]
            assert found == shapes


def test_the_teacher_may_be_the_network_that_comes_with_the_package(shelves: Shelves) -> None:
    teacher, spec = distill.teacher_of("shipped", shelves.train)
    shipped = load_file(SHIPPED_FOLDER / "mobilenet_v2.safetensors")
    assert spec.classes == shelves.train.classes
    for name in ("trunk.conv_stem.weight", "laterals.0.0.weight"):
        assert torch.equal(teacher.state_dict()[name], shipped[name].float())


def test_lost_products_are_told_by_whether_their_label_was_ever_in_doubt() -> None:
    boxes = [[0, 0, 10, 20], [20, 0, 30, 20], [40, 0, 50, 20], [60, 0, 70, 20]]
    photo = Photo(Path("a.jpg"), 80, 40, Detections(boxes, [0, 1, 1, 0]))
    # As published the second had another name, and the third no label.
    before = Photo(Path("a.jpg"), 80, 40, Detections([boxes[0], boxes[1], boxes[3]], [0, 0, 0]))
    found = Detections([boxes[0]], [0], [0.9])
    corrected, published = (Dataset(("cola", "tea"), (p,)) for p in (photo, before))
    counted = held_back.unsure_labels(corrected, published, [found], 0.5)
    assert counted == {"products": 4, "lost": 3, "lost_with_the_same_label_as_published": 1}
    (row,) = held_back.photo_rows(score(corrected, [found], 0.5))
    assert (row["photo"], row["missed or misnamed"], row["false"], row["f1"]) == (
        "a.jpg",
        3,
        0,
        0.4,
    )


@pytest.mark.slow
def test_torchvisions_detector_is_trained_and_judged_on_the_same_photos(drinks: Path) -> None:
    training, validation = align_classes(
        *(ssdlite.corrected(drinks, part) for part in ("train", "val"))
    )
    net = ssdlite.train(training.subset(range(8)), 1, 0)
    few = validation.subset(range(2))
    # One step from random weights gives low scores only, so this tests detection and scoring alone.
    net.score_thresh = 0.0
    found = detect_dataset(ssdlite.TorchvisionDetector(net, few.classes), few)
    assert [0 < len(f) <= 300 for f in found] == [True, True]
    judged = score(few, found, 0.0).micro
    assert (judged.truth, judged.f1 < 0.5) == (few.boxes, True)


@pytest.mark.slow
def test_family_measures_size_work_and_speed(tmp_path: Path) -> None:
    result = tmp_path / "family.json"
    options = [
        "--only",
        "mobilenet_v2_fused",
        "--sizes",
        "128",
        "--runs",
        "3",
        "--out",
        str(result),
    ]
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "speed" / "family.py"), *options],
        check=True,
        capture_output=True,
    )
    whole, small = json.loads(result.read_text())["rows"]
    assert (whole["recipe"], small["recipe"]) == ("float32", "int8")
    assert whole["gmac"] == small["gmac"]
    assert 2.5 < whole["bytes"] / small["bytes"] < 4
    assert small["partitions"] == 1
    assert not [name for name in small["moving"] if name.startswith(("PAD", "TRANSPOSE"))]
    assert small["outside_xnnpack"] == ["TFLite_Detection_PostProcess"]
