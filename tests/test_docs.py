"""What README, CONTRIBUTING and the files around them promise must be so."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import keyword
import re
import shlex
import subprocess
import sys
import tokenize
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accuracy_tables
import baseline_plots
import baseline_tables
import build_pages
import cv2
import jsonschema
import numpy as np
import pytest
import quantization_tables
import runtimes_tables
import speed_tables
import test_architecture
import training_tables
import typer

from shelfcount.cli.app import VERBS, app
from shelfcount.deploy.bundle import BUNDLE_FILES
from shelfcount.records import AnchorLevel, Detections, ModelSpec
from shelfcount.runtime.bundle import LiteRTDetector

ROOT = Path(__file__).parents[1]
PAGES = tuple(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))
DOCS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "export/README.md",
    "export/web/README.md",
    *PAGES,
)
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOMEPAGE = PROJECT["urls"]["Homepage"]
RAW = HOMEPAGE.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
SCHEMAS = ROOT / "docs" / "reference" / "schemas"
# Pages that exist in the site only; docs/generate.py makes them.
GENERATED = {
    *(ROOT / "docs" / "reference" / f"{name}.md" for name in ("verbs", "configuration", "python")),
    *(path.with_name(path.name.replace(".schema.json", ".md")) for path in SCHEMAS.glob("*.json")),
}


def load_examples() -> types.ModuleType:
    """Return docs/examples.py as a module; docs is no package."""
    spec = importlib.util.spec_from_file_location("docs_examples", ROOT / "docs" / "examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks itself up by the module's name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


examples = load_examples()


def code(document: str) -> list[str]:
    """Return the lines of a document's code blocks, continued ones joined, and its inline code."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    # If commands have a prompt, all other lines are output.
    lines = [
        line
        for block in blocks
        for line in block.splitlines()
        if line.startswith("$ ") or not block.startswith("$ ")
    ]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line.removeprefix("$ ") for line in lines]


@pytest.mark.parametrize("document", DOCS)
def test_commands_exist(document: str) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wrong = []
    for line in code(document):
        words = (
            shlex.split(line, comments=True)
            if line.split()[:1] in (["shelfcount"], ["make"])
            else []
        )
        if words[:1] == ["make"]:
            wrong += [line for word in words[1:] if "=" not in word and word not in targets]
        elif len(words) > 1 and not words[1].startswith("-"):
            known = (
                {option for p in verbs[words[1]].params for option in p.opts} | {"--help"}
                if words[1] in verbs
                else set()
            )
            wrong += (
                [line]
                if words[1] not in verbs
                else [line for word in words[2:] if word.startswith("--") and word not in known]
            )
    assert wrong == []


def in_repository(target: str) -> str | None:
    """Return the path in the repository of a link to its public address, otherwise None."""
    bases = (f"{HOMEPAGE}/blob/main/", f"{HOMEPAGE}/tree/main/", RAW)
    return next((target.removeprefix(base) for base in bases if target.startswith(base)), None)


@pytest.mark.parametrize("document", DOCS)
def test_links_lead_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text()):
        path, inside = target.split("#")[0], in_repository(target.split("#")[0])
        if inside is not None:
            good = (ROOT / inside).exists() and (ROOT / inside).is_dir() == ("/tree/" in path)
        elif target.startswith("#"):
            good = True
        elif target.startswith("http"):
            # An address of the repository that names no file of it would not be checked.
            good = not target.startswith((f"{HOMEPAGE}/", RAW.removesuffix("main/")))
        else:
            good = (folder / path).exists() or (folder / path).resolve() in GENERATED
        if not good:
            wrong.append(target)
    assert wrong == []


def test_links_of_the_readme_work_on_pypi() -> None:
    # README.md is the description of the package, which is displayed outside the repository.
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://")] == []
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", README)
    assert [target for target in pictures if not target.startswith(RAW)] == []


def test_readme_is_short_and_begins_with_a_first_count() -> None:
    assert len(README.split()) <= 900  # as `wc -w` counts
    first_screen = README[:1600]
    assert "pip install shelfcount" in first_screen
    assert "shelfcount count drinks-int8 photo.jpg" in first_screen
    assert f"]({RAW}benchmarks/results/counted.jpg)" in first_screen
    # The last class of the bundle, `another`, is no drink of its own.
    labels = (ROOT / "export/release/drinks-int8/labels.txt").read_text().splitlines()
    drinks = len(set(labels) - {"another"})
    assert f"It knows {drinks} Vietnamese drinks" in first_screen
    assert f"This bundle knows {drinks} Vietnamese drinks" in (ROOT / "docs/index.md").read_text()
    commands = [line.split()[1] for line in code("README.md") if line.startswith("shelfcount ")]
    assert commands[:6] == ["count", "check", "train", "export", "evaluate", "count"]


@pytest.mark.parametrize("document", ["README.md", *PAGES])
def test_tested_blocks_print_what_the_page_shows(document: str, tmp_path: Path) -> None:
    page = (ROOT / document).read_text(encoding="utf-8")
    # A marker that is not right before a fence would be a block that nobody runs.
    assert page.count("<!-- tested") == len(examples.examples(page))
    if not examples.examples(page):
        return
    examples.fill(tmp_path)
    for example, actual in examples.run_page(page, tmp_path):
        assert example.text == actual, "run docs/examples.py --write"


def test_a_tested_block_may_leave_lines_out(tmp_path: Path) -> None:
    page = "<!-- tested -->\n```console\n$ shelfcount --help\nx\n...\nx\n```\n"
    ((_, actual),) = examples.run_page(page, tmp_path)
    command, first, dots, last = actual.splitlines()
    assert (command, dots) == ("$ shelfcount --help", "...")
    assert first != last
    with pytest.raises(ValueError, match="only shelfcount is run, got 'rm'"):
        list(examples.run_page(page.replace("shelfcount", "rm"), tmp_path))
    with pytest.raises(ValueError, match="must be console, python or toml, got sh"):
        list(examples.run_page(page.replace("console", "sh"), tmp_path))
    broken = "<!-- tested -->\n```toml\n[train]\nepoch = 3\n```\n"
    with pytest.raises(RuntimeError, match=r"train\.epoch: unknown key"):
        list(examples.run_page(broken, tmp_path))


def test_schemas_describe_the_files() -> None:
    release, data = ROOT / "export" / "release" / "drinks-int8", ROOT / "benchmarks" / "data"
    files = [
        ("model", release / "model.json"),
        ("golden", release / "golden" / "golden.json"),
        *(("corrections", path) for path in sorted(data.glob("drinks_*.json"))),
    ]
    for name, path in files:
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(json.loads(path.read_text()), schema)
    assert len(files) > 3
    guide = (ROOT / "docs" / "guides" / "planogram.md").read_text()
    (plan,) = re.findall(r"```json\n(.*?)```", guide, re.DOTALL)
    jsonschema.validate(json.loads(plan), json.loads((SCHEMAS / "plan.schema.json").read_text()))


def test_schemas_describe_what_the_verbs_write(tmp_path: Path) -> None:
    examples.fill(tmp_path)
    page = """\
<!-- tested -->
```console
$ shelfcount count drinks-int8 photo.jpg --json count.json
$ shelfcount merge drinks-int8 left.jpg right.jpg test/2.jpg --json merge.json
$ shelfcount planogram drinks-int8 photo.jpg --plan plan.json --learn
```
"""
    list(examples.run_page(page, tmp_path))
    for file, name in (("count", "count"), ("merge", "count"), ("plan", "plan")):
        written = json.loads((tmp_path / f"{file}.json").read_text())
        jsonschema.validate(written, json.loads((SCHEMAS / f"{name}.schema.json").read_text()))
    assert json.loads((tmp_path / "merge.json").read_text())["merged"]["unplaced"] != []
    count = json.loads((tmp_path / "count.json").read_text())
    del count["photos"][0]["counts"]
    with pytest.raises(jsonschema.ValidationError, match="'counts' is a required property"):
        jsonschema.validate(count, json.loads((SCHEMAS / "count.schema.json").read_text()))


@pytest.mark.parametrize("document", DOCS)
def test_files_that_are_named_exist(document: str) -> None:
    tops = {"benchmarks", "docs", "export", "notebooks", "shelfcount", "tests"}
    folders = (ROOT, ROOT / "shelfcount", (ROOT / document).parent)
    rooms = {path.name for path in (ROOT / "shelfcount").iterdir() if path.is_dir()}
    named = re.findall(r"`(\w+)(/[\w./-]*)`", (ROOT / document).read_text())
    assert [
        room + rest
        for room, rest in named
        if room in tops | rooms
        and not any(Path(f"{base}/{room}{rest}").exists() for base in folders)
    ] == []


def test_design_describes_every_room_in_order() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    (chain,) = re.findall(r"```\n(cli -> .*?)```", design, re.DOTALL)
    rooms = [set(re.findall(r"\w+", level)) for level in chain.split("->")]
    assert rooms == [set(level) for level in reversed(test_architecture.ORDER)]
    described = re.findall(r"`(\w+)(?:/|\.py)`", design[: design.index("Around the package")])
    assert {room for level in rooms for room in level} <= set(described)


def test_bundle_page_lists_the_files_that_are_written() -> None:
    page = (SCHEMAS.parent / "bundle.md").read_text()
    rows = [f"| `{name}` | {file.content} | {file.reader} |" for name, file in BUNDLE_FILES.items()]
    assert "\n".join(rows) in page


def test_installation_lists_the_verbs_of_each_extra() -> None:
    page = (ROOT / "docs" / "start" / "install.md").read_text()
    rows = dict(re.findall(r"^\| `?(\w+)`?(?:, `docs`)? \| (.*?) \|", page, re.MULTILINE))
    wrong = [verb.name for verb in VERBS if f"`{verb.name}`" not in rows[verb.extra or "none"]]
    assert wrong == []
    assert rows.keys() >= PROJECT["optional-dependencies"].keys() - {"docs"}


def test_every_verb_has_a_guide() -> None:
    guides = "".join(path.read_text() for path in (ROOT / "docs").glob("guides/*.md"))
    assert [verb.name for verb in VERBS if f"shelfcount {verb.name} " not in guides] == []


def code_that_is_named(path: Path) -> Iterator[str]:
    """Yield the identifiers in single backticks of a module's docstrings and comments."""
    texts = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    with path.open("rb") as lines:
        tokens = tokenize.tokenize(lines.readline)
        texts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    for text in texts:
        # A file name such as `model.json` is no identifier; two backticks are other libraries'.
        for name in re.findall(r"(?<!`)`([A-Za-z_][\w.]*)(?:\([^`]*\))?`(?!`)", text):
            if Path(name).suffix not in (
                ".csv",
                ".json",
                ".py",
                ".tflite",
                ".toml",
                ".txt",
                ".yaml",
            ):
                yield name


def defined_names(path: Path) -> Iterator[str]:
    """Yield what a module defines or imports, and its own name."""
    yield from (path.stem, path.parent.name)
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.alias(name=name):
                yield from name.split(".")


def test_code_that_is_named_exists() -> None:
    modules = sorted((ROOT / "shelfcount").rglob("*.py"))
    known = {*dir(builtins), *keyword.kwlist, *(verb.name for verb in VERBS)}
    known.update(name for path in modules for name in defined_names(path))
    design = (ROOT / "docs" / "design.md").read_text()
    assert set(re.findall(r"`([A-Z][\w]+)(?:\.\w+)?`", design)) <= known
    assert [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules
        for name in code_that_is_named(path)
        if not known.issuperset(name.split("."))
    ] == []


def test_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'shelfcount[docs]'")
    # The site must build in an environment without torch.
    script = "import sys; sys.modules['torch'] = None; from mkdocs.__main__ import cli; cli()"
    command = [sys.executable, "-c", script, "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verbs = (tmp_path / "reference" / "verbs" / "index.html").read_text()
    assert [
        name
        for name in typer.main.get_command(app).commands  # type: ignore[attr-defined]
        if f'<h2 id="{name}">' not in verbs
    ] == []
    settings = (tmp_path / "reference" / "configuration" / "index.html").read_text()
    assert "train.validate_every" in settings
    assert "to_pandas" in (tmp_path / "reference" / "python" / "index.html").read_text()
    for schema in SCHEMAS.glob("*.json"):
        assert (tmp_path / "reference" / "schemas" / schema.name).exists()


def test_no_machine_or_index_is_named() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so what is tracked is not known")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    private = re.compile(
        r"(?<![\w.~}])/(work|root|home|tmp)/|--(extra-)?index-url|--find-links|pypi\.org|pythonhosted\.org|download\.pytorch\.org"
    )
    wrong = []
    # This file has to name what it looks for; vendored files are as others published them.
    for name in {name for name in tracked if "/vendor/" not in name} - {"tests/test_docs.py"}:
        path = ROOT / name
        data = path.read_bytes() if path.exists() else b""
        if b"\0" not in data:
            lines = enumerate(data.decode(errors="replace").splitlines(), start=1)
            wrong += [
                f"{name}:{number}: {line.strip()[:80]}"
                for number, line in lines
                if private.search(line)
            ]
    assert sorted(wrong) == []


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Finder:
        spec = ModelSpec("m", "a", ("cola", "tea"), 64, 64, (AnchorLevel(8, ((20.0, 10.0),)),))

        def detect(self, image: np.ndarray) -> Detections:
            return Detections(
                [[5, 5, 15, 25], [30, 5, 40, 25], [52, 5, 62, 25]], [1, 0, 1], [0.9, 0.8, 0.7]
            )

    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (photo,) = re.findall(r'"([^"]+\.jpg)"', example)
    cv2.imwrite(str(tmp_path / photo), np.full((64, 64, 3), 90, np.uint8))
    monkeypatch.chdir(tmp_path)
    # The one thing a user has and this test has not is a trained bundle.
    monkeypatch.setattr(LiteRTDetector, "open", staticmethod(lambda *_: Finder()))
    exec(compile(example, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "{'tea': 2, 'cola': 1}" in shown
    assert len(example.strip().splitlines()) <= 10


# As `shelfcount bench` writes it.
ROW: dict[str, Any] = {
    "name": "n",
    "variant": "LiteRT int8",
    "start": "",
    "size": 10**6,
    "macs": 1,
    "parameters": 1,
    "role": "phone",
    "f1": 0.9,
    "map": 0.5,
    "count_error": 0.1,
    "latency": {"p50": 10.0, "p90": 11.0, "p99": 12.0, "runs": 5, "warmup": 1, "threads": 1},
}


def test_figures_are_current() -> None:
    stale = build_pages.stale(build_pages.documents(build_pages.RESULTS))
    assert stale == [], "run benchmarks/tables/build_pages.py"


def test_every_table_is_on_a_page() -> None:
    named = [
        name
        for page in build_pages.PAGES.glob("*.md")
        for name in re.findall(r"\{\{ (.+?) \}\}", page.read_text())
    ]
    assert sorted(named) == sorted(build_pages.TABLES)


def test_figures_come_from_the_results(tmp_path: Path) -> None:
    assert accuracy_tables.networks(tmp_path).count("not measured") == len(
        accuracy_tables.EVALUATED
    ) * (len(accuracy_tables.HEADS) - 1)
    tables_left = (
        accuracy_tables.errors,
        baseline_tables.short,
        baseline_tables.formats,
        baseline_tables.trainings,
        training_tables.steps,
        training_tables.steps_at_the_end,
        training_tables.training_speed,
        quantization_tables.quantization,
        runtimes_tables.consumers,
        speed_tables.members,
        speed_tables.peers,
        speed_tables.growth,
        speed_tables.at_320,
        speed_tables.at_640,
        speed_tables.with_vnni,
        speed_tables.phones,
    )
    assert [make(tmp_path).count("not measured") for make in tables_left] == [1] * len(tables_left)
    stamp = {"date": "2026-01-02 03:04 UTC", "commit": "abc", "device": "a phone", "threads": 2}
    scores = {
        "photos": 40,
        "boxes": 1234,
        "f1": 0.83149,
        "any_class": {"f1": 0.95},
        "map": None,
        "stamp": stamp,
    }
    model = {
        "minutes": 12.34,
        "photos": 180,
        "boxes": 5570,
        "start": "runs/fused.safetensors",
        "seed": 0,
        "val_f1": 0.9,
        "trained": stamp,
    }
    result = {**scores, "count_error": {"by_class": {"relative": 0.125}}, "model": model}
    (tmp_path / "drinks_int8.json").write_text(json.dumps(result))
    (tmp_path / "drinks_int8_corrected.json").write_text(
        json.dumps({**result, "f1": 0.9, "boxes": 1300})
    )
    shown = accuracy_tables.networks(tmp_path)
    row = (
        "| Released bundle, LiteRT int8 | 0.831 | 0.950 | not measured | 0.125 "
        "| 0.900 | 0.950 | not measured | 0.125 |"
    )
    assert row in shown
    assert "40 test photos have 1,234 products in the published labels and 1,300 in" in shown
    assert "The released bundle was trained for 12.3 minutes on 180 photos" in shown
    assert "at commit abc on a phone, 2 threads." in shown
    assert "not measured" in baseline_tables.trainings(tmp_path)
    baseline = {**result, "model": {**model, "start": "baseline-windows/model.safetensors"}}
    (tmp_path / "drinks_baseline.json").write_text(json.dumps(baseline))
    line = {
        "name": "size",
        "budget": "at most 5 MB",
        "value": "1.72 MB",
        "state": "kept",
        "basis": "the bundle",
    }
    trained = {
        "rows": [ROW, {**ROW, "name": "resnet50", "size": 9 * 10**6, "role": "baseline"}],
        "reference": 1,
        "times_faster": {"median": 21.4, "low": 19.1, "high": 22.2},
        "evaluation": {"boxes": 1300, "photos": 40},
        "stamp": stamp,
    }
    trained["phones"] = [{"phone": "Pixel 4", "lines": [line]}]
    (tmp_path / "drinks_bench_trained.json").write_text(json.dumps(trained))
    learnt = "run,epoch,loss,val_f1\nwindows,1,0.3,\nwindows,2,0.2,0.85\nwhole,1,0.1,0.86\n"
    (tmp_path / baseline_plots.HISTORY).write_text(learnt)
    curve = baseline_plots.learning_curve(tmp_path / baseline_plots.HISTORY)
    assert curve.startswith(b"\x89PNG")
    shown = baseline_tables.trainings(tmp_path)
    assert "trained in 2 trainings with seed 0. The last training took 12.3 minutes" in shown
    assert "It started from baseline-windows/model.safetensors." in shown
    assert "Validation F1: 0.850 after 2 epochs of windows, 0.860 after 1 epoch of whole." in shown
    assert "| Pixel 4 | size | at most 5 MB | 1.72 MB | kept | the bundle |" in speed_tables.phones(
        tmp_path
    )
    shown = baseline_tables.formats(tmp_path)
    assert (
        "| resnet50 | LiteRT int8 | 9.00 | 0.00 | 10.0 | 11.0 | 1 | 0.900 | 0.500 | 0.100 |"
        in shown
    )
    assert "9 times smaller and 21 times faster (19 to 22 over paired runs)" in shown
    assert "F1, mAP and count error are for 1,300 labelled products." in shown
    shown = baseline_tables.short(tmp_path)
    assert "| Released bundle, int8 | 0.900 | 0.100 | 1.00 | 10.0 |" in shown
    assert "40 test photos with 1,300 products, corrected labels." in shown


def test_plots_need_a_trained_baseline() -> None:
    row = ROW
    untrained = {**row, "role": "baseline", "variant": "LiteRT float32", "size": 10**8, "f1": None}
    assert baseline_plots.draw({"rows": [row, untrained], "baseline_evaluation": None}) == {}
    one = {"name": "cola", "truth": 4, "found": 4, "tp": 3, "count_mae": 0.0, "count_bias": 0.0}
    judged = {"per_class": [one, {**one, "name": "tea"}]}
    compared = {
        "rows": [row, {**untrained, "f1": 0.92}],
        "evaluation": judged,
        "baseline_evaluation": judged,
    }
    drawn = baseline_plots.draw(compared)
    assert tuple(drawn) == baseline_plots.PLOTS
    assert all(data.startswith(b"\x89PNG") for data in drawn.values())


def test_consumers_leave_no_row_without_figures_or_reason(tmp_path: Path) -> None:
    web, arm = "MediaPipe Tasks, web", "LiteRT on Arm"
    met = {
        "consumer": web,
        "form": "model.tflite",
        "version": "1.1.0",
        "f1": 0.83149,
        "largest_box_px": 1.5,
        "largest_score": 0.03125,
    }
    unmade = {
        "consumer": arm,
        "form": "model.tflite",
        "reason": "not run: These are missing: debootstrap",
    }
    stamp = {"date": "2026-01-02 03:04 UTC", "commit": "abc", "device": "a server", "threads": 1}
    about = {
        "name": "drinks",
        "sha256": "0123456789abcdef",
        "photos": 4,
        "products": 130,
        "f1": 0.85,
        "stamp": stamp,
    }
    result = {**about, "arm_bits": {"reason": "not run: no network"}, "rows": [unmade, met]}
    (tmp_path / "consumers.json").write_text(json.dumps(result))
    shown = runtimes_tables.consumers(tmp_path).splitlines()
    assert (
        shown[2]
        == "| MediaPipe Tasks, web | 1.1.0 | `model.tflite` | yes | 0.831 | 1.500 | 0.031 |"
    )
    assert (
        shown[3]
        == "| LiteRT on Arm | - | `model.tflite` | - | not run: These are missing: debootstrap "
        "| - | - |"
    )
    assert shown[-1].startswith(
        "Bundle drinks (sha256 0123456789ab...) on 4 golden photos with 130 products"
    )


def test_figures_need_their_markers() -> None:
    with pytest.raises(
        ValueError, match="'<!-- figures -->' and then '<!-- /figures -->', once each"
    ):
        build_pages.replaced("no markers here", "figures", "text")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/demo.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_demo_leaves_a_folder_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = demo("--out", str(tmp_path))
    assert result.returncode == 2
    assert f"'{tmp_path}' exists and was not made by the demo" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_demo_ends_with_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    result = demo("--short", "--out", str(folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"report: {folder / 'report' / 'report.html'}"
    assert (folder / "report" / "report.html").exists()
    # Each stage says how long it took, and the whole is their sum.
    durations = json.loads((folder / "durations.json").read_text())
    assert len(durations["seconds"]) == 5
    assert durations["total"] == pytest.approx(sum(durations["seconds"].values()), abs=0.1)
