"""Tests of repeated hold-out: statistics, storage of studies, schedulers and the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repeats as study_script
import repeats_tables
from conftest import Overfit, Shelves

from shelfcount import config as config_module
from shelfcount import machine
from shelfcount.cli import app
from shelfcount.data import datasets, formats
from shelfcount.metrics.confusions import needs
from shelfcount.records import Dataset, ShelfcountError
from shelfcount.report import repeats_page
from shelfcount.studies import repeat_folder, repeat_statistics, repeats, scheduling
from shelfcount.studies.repeat_statistics import StoppingRule
from shelfcount.studies.repeats import ClassFigures, Repeat, RepeatSettings, RepeatStudy, Task
from shelfcount.training import frozen_features


def result(seed: int, f1: float = 0.5, share: float = 1.0, trained: int = 8, tp: int = 5) -> Repeat:
    classes = (ClassFigures("cola", trained, 10, 10, tp), ClassFigures("tea", 3, 0, 0, 0))
    return Repeat(
        Task(seed, share),
        f1,
        f1,
        1 - f1,
        None,
        0.4,
        {"train": 8, "val": 2, "test": 2},
        classes,
        1.0,
        "abc",
    )


# ---------------------------------------------------------------- statistics


def test_spread_of_known_values() -> None:
    spread = repeat_statistics.summarize_spread(
        [1.0, 2.0, 3.0, 4.0, 100.0], np.random.default_rng(0)
    )
    # Median and quartiles by counting; SD of these five by hand: sqrt(7610 / 4).
    assert (spread.median, spread.quartiles) == (3.0, (2.0, 4.0))
    assert spread.sd == pytest.approx(43.617, abs=1e-3)
    assert spread.interval[0] <= spread.median <= spread.interval[1]


def test_the_interval_contains_the_median_with_its_confidence() -> None:
    rng = np.random.default_rng(1)
    contained = [
        (s := repeat_statistics.summarize_spread(rng.normal(size=40).tolist(), rng)).interval[0]
        <= 0
        <= s.interval[1]
        for _ in range(200)
    ]
    # The nominal confidence is 95 %; that of a bootstrap of 40 values differs by a few points.
    assert 0.89 <= np.mean(contained) <= 0.995


def test_enough_is_the_number_from_which_on_the_interval_stays_narrow() -> None:
    def step(n: int, width: float) -> repeat_statistics.Spread:
        return repeat_statistics.Spread(n, 0.5, 0.1, (0.4, 0.6), (0.0, width))

    wide = [step(n, 1.0) for n in range(1, 13)]
    steps = [*wide, step(13, 0.05), step(14, 0.2), step(15, 0.05), step(16, 0.04)]
    assert repeat_statistics.repeats_needed(steps, 0.1) == repeat_statistics.RepeatsNeeded(
        0.1, 15, 15
    )
    # Half the width of 16 repeats needs four times the number.
    assert repeat_statistics.repeats_needed(steps, 0.02) == repeat_statistics.RepeatsNeeded(
        0.02, None, 64
    )
    assert (
        repeat_statistics.repeats_needed([step(n, 0.0) for n in range(1, 12)], 0.1).repeats
        == repeat_statistics._MIN_REPEATS
    )
    with pytest.raises(ValueError, match="width must be above 0, got 0"):
        repeat_statistics.repeats_needed(steps, 0)
    with pytest.raises(ValueError, match="steps must contain at least one repeat, got none"):
        repeat_statistics.repeats_needed([], 0.1)


def test_learning_curves_use_the_splits_with_every_share() -> None:
    several = [
        result(seed, share=share, trained=n, tp=tp)
        for seed in (0, 1)
        for share, n, tp in ((0.25, 2, 2), (0.5, 4, 6), (1.0, 8, 8))
    ]
    curves = repeat_statistics.learning_curves([*several, result(2, trained=99, tp=0)])
    assert curves == {
        "cola": [(2.0, pytest.approx(0.8)), (4.0, pytest.approx(0.4)), (8.0, pytest.approx(0.2))]
    }
    # The loss is 1.6 / n, so twice the examples halve it: 8 more than the 8 of the study.
    confusion = np.array([[8, 0, 2], [0, 0, 0], [0, 0, 0]])
    assert needs(("cola", "tea"), confusion, None, curves)[0].halving == 8


def test_agreement_of_depths_on_common_splits() -> None:
    fast, full = {0: 0.5, 1: 0.6, 2: 0.7, 9: 0.1}, {0: 0.7, 1: 0.8, 2: 0.9, 8: 0.1}
    agreement = repeat_statistics.depth_agreement(fast, full, np.random.default_rng(0))
    assert (agreement["splits"], agreement["pearson"], agreement["spearman"]) == (
        3,
        pytest.approx(1),
        pytest.approx(1),
    )
    assert agreement["full_minus_fast"]["mean"] == pytest.approx(0.2)
    assert (
        repeat_statistics.depth_agreement({0: 0.5}, {1: 0.5}, np.random.default_rng(0))[
            "full_minus_fast"
        ]
        is None
    )


# ---------------------------------------------------------------- study, folder and schedulers


def plan(*changes: str, depth: Any = "fast", views: int = 2, epochs: int = 2) -> RepeatSettings:
    return RepeatSettings(
        depth,
        epochs,
        config_module.load_config(None, changes),
        views,
        {"train": 0.5, "val": 0.25, "test": 0.25},
    )


@pytest.fixture
def study(tmp_path: Path, shelves: Shelves) -> RepeatStudy:
    """A study of the full depth, which computes no features."""
    return repeat_folder.open_study(shelves.train, plan(depth="full"), tmp_path / "study")


def here(study: RepeatStudy, tasks: Iterator[Task]) -> Iterator[Repeat]:
    """A scheduler that returns results without training."""
    return (result(task.seed, share=task.share) for task in tasks)


def test_finished_repeats_are_not_run_again(study: RepeatStudy, tmp_path: Path) -> None:
    folder, asked = tmp_path / "study", []

    def watched(study: RepeatStudy, tasks: Iterator[Task]) -> Iterator[Repeat]:
        for task in tasks:
            asked.append(task.seed)
            yield result(task.seed)
            # A second time, as from a worker that died after it had sent its result.
            yield result(task.seed)

    tasks = [Task(seed) for seed in range(5)]
    repeat_folder.run_repeats(study, folder, tasks[1:3], watched)
    outcomes = repeat_folder.run_repeats(study, folder, tasks, watched)
    assert asked == [1, 2, 0, 3, 4]
    assert [r.task.seed for r in outcomes] == list(range(5))
    assert outcomes == [result(seed) for seed in range(5)]
    assert len(list(folder.glob("repeat-*.json"))) == 5


def test_a_study_stops_by_the_first_repeats_and_not_the_fast_ones(
    study: RepeatStudy, tmp_path: Path
) -> None:
    seen: list[int] = []

    def backwards(study: RepeatStudy, tasks: Iterator[Task]) -> Iterator[Repeat]:
        while pair := [task for _, task in zip(range(2), tasks, strict=False)]:
            yield from (result(task.seed) for task in reversed(pair))

    class AfterFour(StoppingRule):
        def is_met(self, repeats: Sequence[Repeat]) -> bool:
            seen.append(len(repeats))
            assert [r.task.seed for r in repeats] == list(range(len(repeats)))
            return len(repeats) >= 4

    outcomes = repeat_folder.run_repeats(
        study,
        tmp_path / "study",
        [Task(seed) for seed in range(100)],
        backwards,
        stop=AfterFour(width=0.01),
    )
    assert len(outcomes) == 4
    assert seen == [0, 0, 2, 2, 4]


def test_a_folder_of_another_study_is_refused(
    study: RepeatStudy, tmp_path: Path, shelves: Shelves
) -> None:
    folder = tmp_path / "study"
    repeat_folder.run_repeats(study, folder, [Task(0)], here)
    with pytest.raises(ShelfcountError, match="differs in epochs"):
        repeat_folder.open_study(shelves.train, plan(depth="full", epochs=3), folder)
    with pytest.raises(ShelfcountError, match="differs in data, photos"):
        repeat_folder.open_study(shelves.val, plan(depth="full"), folder)
    strange = json.loads((folder / "repeat-0000.json").read_text()) | {"study": "0" * 64}
    (folder / "repeat-0007.json").write_text(json.dumps(strange))
    with pytest.raises(ShelfcountError, match=r"repeat-0007.json' belongs to another study"):
        repeat_folder.finished_repeats(folder)
    with pytest.raises(ShelfcountError, match=r"contains no study: there is no study\.json in it"):
        repeat_folder.finished_repeats(tmp_path)


def test_processes_and_seeds_do_not_make_another_study(tmp_path: Path, shelves: Shelves) -> None:
    assert repeat_folder.study_facts(shelves.train, plan()) == repeat_folder.study_facts(
        shelves.train, plan("train.workers=7", "train.seed=3")
    )
    assert repeat_folder.study_facts(shelves.train, plan()) != repeat_folder.study_facts(
        shelves.train, plan("train.lr=0.5")
    )


def test_a_photo_in_several_data_sets_is_pooled_once(shelves: Shelves) -> None:
    assert len(datasets.pool_datasets([shelves.train, shelves.val, shelves.train])) == len(
        shelves.train
    ) + len(shelves.val)


def test_start_weights_trained_on_the_photos_are_reported(overfit: Any, shelves: Shelves) -> None:
    config = config_module.load_config(None, [f"model.weights={overfit.run / 'model.safetensors'}"])
    leak = str(repeat_folder.leakage_warning(config, [shelves.val, overfit.photos]))
    assert "were trained on few.json. Its photos are in test parts" in leak
    leak = str(repeat_folder.leakage_warning(config, [shelves.val]))
    assert "a detector that was trained on few.json. If photos of this study" in leak
    assert (
        repeat_folder.leakage_warning(
            config_module.load_config(None, ["model.weights=none"]), [overfit.photos]
        )
        is None
    )


# ---------------------------------------------------------------- the two depths


@pytest.fixture(scope="module")
def tiny_plan(tiny: tuple[str, ...]) -> RepeatSettings:
    return plan(*tiny, "augment.mosaic=0.5", epochs=4)


@pytest.fixture(scope="module")
def everything(shelves: Shelves) -> Dataset:
    return datasets.pool_datasets([shelves.train, shelves.val])


@pytest.fixture(scope="module")
def cached(
    tmp_path_factory: pytest.TempPathFactory,
    everything: Dataset,
    tiny_plan: RepeatSettings,
    one_thread: None,
) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    repeat_folder.open_study(everything, tiny_plan, folder)
    return folder


def test_cached_features_have_the_shapes_of_the_backbone_and_give_boxes(
    cached: Path, everything: Dataset, tiny_plan: RepeatSettings
) -> None:
    import torch

    from shelfcount.training.inputs import make_spec
    from shelfcount.training.networks import build
    from shelfcount.training.runs import TorchDetector
    from shelfcount.vision.images import read_photo

    torch.manual_seed(0)
    views = frozen_features.load_features(cached / repeat_folder.FEATURES)
    spec = dataclasses.replace(make_spec(everything, tiny_plan.config), score_threshold=0.0)
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, 32)
    photo = everything.photos[3]
    # Only shapes are compared: the backbone of the cache had other random weights.
    assert [tuple(f.shape) for f in views.features([3], [0])] == [
        (1, *f.shape[1:]) for f in net.eval().trunk(torch.zeros(1, 3, 96, 96))
    ]
    assert views.truth(3, 0).boxes.numpy() == pytest.approx(
        photo.truth.boxes * np.array([96 / 256, 96 / 192] * 2), abs=1e-3
    )
    assert frozen_features.detect_cached(net, views, 3, photo, spec).boxes[:, 2].max() <= 256
    whole = TorchDetector(net, spec).detect(read_photo(photo.path))
    pixels = torch.from_numpy(np.zeros((1, 3, 96, 96), np.uint8))
    seen = frozen_features._backbone_features(net.trunk, pixels, tiny_plan.config)
    assert [f.dtype for f in seen] == [np.float16] * 3
    assert len(whole) > 0


def test_a_fast_repeat_is_reproducible_and_its_metrics_are_consistent(
    cached: Path, everything: Dataset, tiny_plan: RepeatSettings
) -> None:
    study = repeat_folder.open_study(everything, tiny_plan, cached)
    first, again, fewer = (repeats.repeat(study, task) for task in (Task(1), Task(1), Task(1, 0.5)))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(again, seconds=0.0)
    assert sum(first.photos.values()) == len(everything)
    tp, truth, detected = (
        sum(getattr(row, name) for row in first.per_class) for name in ("tp", "truth", "found")
    )
    assert first.f1 == pytest.approx(2 * tp / (truth + detected))
    # The same test photos with half the training photos.
    assert [row.truth for row in fewer.per_class] == [row.truth for row in first.per_class]
    assert fewer.photos["train"] == first.photos["train"] / 2
    assert Repeat.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_an_incomplete_cache_is_refused(cached: Path, tmp_path: Path) -> None:
    with pytest.raises(ShelfcountError, match="cannot be read"):
        frozen_features.load_features(tmp_path)


@pytest.mark.slow
def test_a_full_repeat_trains_and_tests(
    tmp_path: Path, everything: Dataset, tiny_plan: RepeatSettings
) -> None:
    study = repeat_folder.open_study(
        everything, dataclasses.replace(tiny_plan, depth="full"), tmp_path
    )
    outcome = repeats.repeat(study, Task(0))
    assert 0 <= outcome.f1 <= 1
    assert outcome.map is not None


# ---------------------------------------------------------------- workers that die


def fragile(folder: Path, seed: int) -> None:
    """Kill this process the first time that seed 2 is run."""
    trace = folder / f"{seed}.ran"
    with trace.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if seed == 2 and len(trace.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)


def work(study: RepeatStudy, task: Task) -> Repeat:
    fragile(Path(study.data.name), task.seed)
    return result(task.seed)


def _with_traces(study: RepeatStudy, folder: Path) -> RepeatStudy:
    folder.mkdir()
    return dataclasses.replace(study, data=dataclasses.replace(study.data, name=str(folder)))


def _none_lost_none_twice(study: RepeatStudy, folder: Path, scheduler: Callable[..., Any]) -> None:
    traces = folder.with_name("traces")
    done: list[int] = []
    tasks = [Task(seed) for seed in range(6)]
    outcomes = repeat_folder.run_repeats(
        _with_traces(study, traces), folder, tasks, scheduler, progress=lambda n, _: done.append(n)
    )
    assert [r.task.seed for r in outcomes] == list(range(6))
    assert done == list(range(1, 7))
    assert len((traces / "2.ran").read_text().splitlines()) >= 2


@pytest.mark.slow
def test_a_process_that_is_killed_loses_no_repeat(study: RepeatStudy, tmp_path: Path) -> None:
    _none_lost_none_twice(study, tmp_path / "study", scheduling.processes(2, work))


@pytest.mark.slow
def test_on_a_ray_cluster_of_two_nodes_a_killed_worker_loses_no_repeat(
    study: RepeatStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # By default, Ray workers have a low priority, so the test would not finish on a busy machine.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    # Workers import this file and its imports.
    folders = [
        Path(__file__).parents[1] / name
        for name in ("tests", "benchmarks/quality", "benchmarks/tables")
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        assert len(cluster.list_all_nodes()) == 2
        _none_lost_none_twice(study, tmp_path / "study", scheduling.on_ray(cluster.address, work))
    finally:
        cluster.shutdown()


def test_a_ray_cluster_that_does_not_answer_is_reported(study: RepeatStudy, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ShelfcountError, match="no Ray cluster answers at 'localhost:1'"):
        repeat_folder.run_repeats(
            study, tmp_path / "study", [Task(0)], scheduling.on_ray("localhost:1", work)
        )


# ---------------------------------------------------------------- the command line


@pytest.fixture
def repeat(
    monkeypatch: pytest.MonkeyPatch, overfit: Overfit, shelves: Shelves
) -> Callable[..., int]:
    """Run `shelfcount repeat` in this process, and return the exit code."""

    def in_this_process(count: int) -> repeat_folder.Scheduler:
        return lambda study, tasks: (repeats.repeat(study, task) for task in tasks)

    monkeypatch.setattr(scheduling, "processes", in_this_process)

    def run(*arguments: object, verb: str = "repeat") -> int:
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "shelfcount",
                verb,
                str(overfit.run),
                f"--data={shelves.val_json}",
                *map(str, arguments),
            ],
        )
        try:
            app.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def test_repeats_continue_and_their_curves_are_on_the_page(
    repeat: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "repeats", tmp_path / "out.json"
    common = ("--epochs=1", "--shares=0.34,0.67,1", f"--out={folder}", "--force")
    assert repeat("--repeats=1", *common) == 0
    old = {path: path.stat().st_mtime_ns for path in folder.glob("repeat-*.json")}
    assert len(old) == 3
    pages = (
        f"--html={tmp_path / 'page.html'}",
        f"--picture={tmp_path / 'settling.png'}",
        f"--json={out}",
    )
    assert repeat("--repeats=2", *pages, *common) == 0
    assert {path: path.stat().st_mtime_ns for path in old} == old
    result = json.loads(out.read_text())
    # Four photos of the run, which are also its validation photos, and four others.
    assert (result["repeats"], result["plan"]["photos"], len(result["results"])) == (2, 8, 6)
    assert str(tmp_path) not in out.read_text()
    assert "2 repeats" in capsys.readouterr().out
    assert (
        repeat(f"--repeats-dir={folder}", f"--html={tmp_path / 'confusions.html'}", verb="evaluate")
        == 0
    )
    page = (tmp_path / "confusions.html").read_text()
    assert "more examples to halve the errors" in page


@pytest.mark.slow
def test_a_study_that_is_killed_continues_and_leaves_no_workers(
    repeat: Callable[..., int], tmp_path: Path, overfit: Overfit, shelves: Shelves
) -> None:
    folder = tmp_path / "repeats"
    common = ("--epochs=1", f"--out={folder}")
    verb = [
        sys.executable,
        "-m",
        "shelfcount",
        "repeat",
        str(overfit.run),
        f"--data={shelves.val_json}",
    ]
    study = subprocess.Popen(
        [*verb, "--repeats=500", "--processes=1", *common], stderr=subprocess.DEVNULL
    )
    while not (old := list(folder.glob("repeat-*.json"))):
        assert study.poll() is None
        time.sleep(0.1)
    workers = Path(f"/proc/{study.pid}/task/{study.pid}/children").read_text().split()
    study.kill()
    study.wait()
    before = {path: path.stat().st_mtime_ns for path in old}
    assert repeat("--repeats=3", *common) == 0
    assert {path: path.stat().st_mtime_ns for path in old} == before
    assert {Task(seed) for seed in range(3)} <= set(repeat_folder.finished_repeats(folder))
    end = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--depth=deep",), "must be fast or full, got 'deep'"),
        (("--shares=0.5,2",), "such as 0.25,0.5,1, got '0.5,2'"),
        (("--until=0",), "--until must be above 0, got 0"),
    ],
)
def test_wrong_options_of_repeats_are_reported(
    repeat: Callable[..., int],
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert repeat("--repeats=2", *arguments) == 2
    assert message in capsys.readouterr().err


def test_repeat_warns_of_start_weights_trained_on_the_photos(
    repeat: Callable[..., int],
    tmp_path: Path,
    overfit: Overfit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = f"--out={tmp_path}"
    assert (
        repeat("--repeats=1", "--epochs=1", folder, f"--start={overfit.run / 'model.safetensors'}")
        == 0
    )
    assert "were trained on few.json" in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------- page, and the real photos


def test_the_page_names_the_sufficient_number_of_repeats(tmp_path: Path) -> None:
    several = [result(seed, 0.5 + seed % 3 / 1000) for seed in range(12)] + [
        result(seed, 0.4, 0.5) for seed in range(12)
    ]
    summary = repeat_statistics.summarize_repeats(several, 0.1)
    repeats_page.write_repeats_page(several, summary, {"depth": "fast"}, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert (
        "10 repeats are enough for a 95 % confidence interval of the median narrower than 0.1"
        in text
    )
    assert [share["share"] for share in summary["by_share"]] == [0.5, 1.0]
    assert summary["repeats"] == 12


def test_the_table_contains_both_depths_and_their_agreement(tmp_path: Path) -> None:
    assert repeats_tables.repeats(tmp_path) == "Repeats over random splits: not measured."
    fast = repeat_statistics.summarize_repeats(
        [result(seed, 0.5 + seed / 100) for seed in range(12)], 0.1
    )
    both = repeat_statistics.depth_agreement(
        {n: 0.5 + n / 100 for n in range(5)},
        {n: 0.7 + n / 100 for n in range(5)},
        np.random.default_rng(0),
    )
    stamped = {"date": "2026-01-02", "commit": "abc", "device": "a phone", "threads": 1}
    study = {
        "photos": "Twelve photos",
        "fast": {**fast, "plan": {"epochs": 24}, "stamp": stamped},
        "agreement": {"f1": both},
    }
    (tmp_path / "repeats.json").write_text(json.dumps(study))
    shown = repeats_tables.repeats(tmp_path)
    assert "| heads on a frozen backbone | F1 | 12 | 24 | 0.555 |" in shown
    assert (
        "On the 5 splits of both depths, F1 of the whole network is 0.200 higher on average"
        in shown
    )
    assert "Heads on a frozen backbone: Measured 2026-01-02 at commit abc on a phone" in shown


def test_a_depth_that_was_not_run_again_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_script, "RUNS", tmp_path / "runs")
    rows = [
        {"seed": seed, "f1": 0.5 + seed / 100, "count_error": None if seed else 0.2}
        for seed in range(4)
    ]
    fast = {"stamp": {"date": "2026-01-02"}, "repeats": 4, "results": rows}
    (tmp_path / "out.json").write_text(
        json.dumps({"fast": fast, "learning_curves": [{"class": "cola"}]})
    )
    (tmp_path / "runs" / "full").mkdir(parents=True)
    (tmp_path / "runs" / "full" / repeat_folder.STUDY).write_text("{}")
    for seed in range(3):
        repeat_folder.keep_repeat(tmp_path / "runs" / "full", result(seed, 0.6 + seed / 100))
    made = study_script.report(tmp_path / "out.json")
    assert made["fast"] == fast
    assert made["learning_curves"] == [{"class": "cola"}]
    assert made["full"]["repeats"] == 3
    assert made["full"]["stamp"]["device"] == machine.describe_device()
    assert made["agreement"]["f1"]["full_minus_fast"]["mean"] == pytest.approx(0.1)
    assert made["agreement"]["count_error"]["splits"] == 1


@pytest.mark.slow
def test_two_fast_repeats_on_some_drinks_photos(
    drinks: Path, tmp_path: Path, one_thread: None
) -> None:
    data = formats.read_labels(drinks / "test.json")
    settings = config_module.load_config(
        None,
        [
            "model.weights=none",
            "model.architecture=mobilenet_v2_050",
            "model.height=160",
            "model.width=160",
        ],
    )
    study = repeat_folder.open_study(data, RepeatSettings("fast", 4, settings, 2), tmp_path)
    outcomes = repeat_folder.run_repeats(
        study,
        tmp_path,
        [Task(0), Task(1)],
        lambda study, tasks: (repeats.repeat(study, task) for task in tasks),
    )
    assert [sum(r.photos.values()) for r in outcomes] == [40, 40]
    assert len({tuple(row.truth for row in r.per_class) for r in outcomes}) == 2
