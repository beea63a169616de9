"""Test of the wheel in an environment without extras: each verb works or names what it needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from shelfcount.cli.app import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "export" / "release" / "drinks-int8" / "golden"
# The extra that a verb needs, whatever its arguments are. Verbs of a bundle need no torch.
EXTRA_OF_VERB = {
    "bench": "labels",
    "check": "labels",
    "correct": None,
    "count": None,
    "evaluate": "labels",
    "export": "export",
    "merge": None,
    "planogram": None,
    "propose": None,
    "repeat": "train",
    "serve": None,
    "stress": None,
    "synth": None,
    "train": "train",
    "verify": None,
}
# What a build needs of a checkout. A copy has no old `build` folder whose files enter the wheel.
SOURCES = ("shelfcount", "export", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md")
NO_NETWORK = re.compile("dns error|failed to lookup|[Cc]onnect|timed out|Failed to fetch|tunnel")


@dataclass(frozen=True)
class Installation:
    """An environment with the wheel and its base dependencies."""

    environment: Path
    folder: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment, which does not see the checkout."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [str(self.environment / "bin" / command), *arguments],
            cwd=self.folder,
            env={**variables, "MPLBACKEND": "agg", "COLUMNS": "200"},
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a wheel and the source archive that it was built from."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in (*SOURCES, "LICENSE", "requirements.lock"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "-o", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def installed(
    distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    # uv keeps packages in a cache, so that a second installation takes a second.
    uv = pytest.importorskip("uv").find_uv_bin()
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "environment"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    constraints = folder / "constraints.txt"
    lock = (ROOT / "requirements.lock").read_text()
    constraints.write_text("\n".join(re.findall(r"^[a-z0-9.-]+==[^ ;]+", lock, re.MULTILINE)))
    command = [uv, "pip", "install", "-q", "--python", str(environment / "bin" / "python")]
    command += ["-c", str(constraints), str(distributions[0])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip("the packages could not be downloaded in 240 seconds")
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"the packages could not be downloaded: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return Installation(environment, folder)


def test_distributions_pass_the_index_check(distributions: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_contains_the_bundle_but_not_its_run(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = wheel.namelist()
    bundle = {n.removeprefix("shelfcount/bundles/") for n in names if "/bundles/" in n}
    released = GOLDEN.parent
    assert bundle == {
        str(path.relative_to(released.parent)) for path in released.rglob("*") if path.is_file()
    }
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"shelfcount"}
    # An index accepts 100 MB; most of this is the LiteRT runtime of the web page.
    assert [path.name for path in distributions if path.stat().st_size > 20e6] == []


def test_heavy_packages_are_not_installed(installed: Installation) -> None:
    packages = {p.name for p in installed.environment.glob("lib/*/site-packages/*")}
    assert {"cv2", "ai_edge_litert", "shelfcount"} <= packages
    assert packages & {"torch", "scipy", "imagehash", "nltk", "faster_coco_eval"} == set()


def test_version_is_printed(installed: Installation) -> None:
    import shelfcount

    done = installed.run("shelfcount", "--version")
    assert (done.returncode, done.stdout.split()[-1]) == (0, shelfcount.__version__), done.stderr
    done = installed.run("python", "-c", "import shelfcount; print(shelfcount.__file__)")
    assert done.stdout.startswith(str(installed.environment))


def test_packaged_bundle_counts_a_golden_photo(installed: Installation) -> None:
    photo = json.loads((GOLDEN / "golden.json").read_text())["photos"][0]
    expected = Counter(photo["counts"])
    arguments = ("drinks-int8", str(GOLDEN / photo["file"]), "--json", "counts.json")
    done = installed.run("shelfcount", "count", *arguments)
    assert done.returncode == 0, done.stderr
    counted = json.loads((installed.folder / "counts.json").read_text())["photos"][0]
    assert Counter(found["class"] for found in counted["detections"]) == expected
    code = (
        "import shelfcount, sys; (shelf,) = shelfcount.count([sys.argv[1]], 'drinks-int8'); "
        "print(sum(shelf.counts.values()))"
    )
    done = installed.run("python", "-c", code, str(GOLDEN / photo["file"]))
    assert done.stdout.strip() == str(expected.total()), done.stderr


def test_packaged_bundle_is_verified_and_served(installed: Installation) -> None:
    done = installed.run("shelfcount", "verify", "drinks-int8")
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "from pathlib import Path; from shelfcount.deploy.serve import open_server, page_folder; "
        "open_server(Path('drinks-int8'), page_folder(), port=0).server_close()"
    )
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr


def test_synthetic_photos_are_rendered(installed: Installation) -> None:
    done = installed.run("shelfcount", "synth", "--out", "synthetic", "--photos", "1")
    assert done.returncode == 0, done.stderr
    assert (installed.folder / "synthetic" / "labels.json").is_file()


def write_golden_labels(folder: Path) -> None:
    """Write the golden photos and their labels in COCO format."""
    classes = (GOLDEN.parent / "labels.txt").read_text().splitlines()
    images: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    for number, photo in enumerate(json.loads((GOLDEN / "golden.json").read_text())["photos"]):
        shutil.copy2(GOLDEN / photo["file"], folder)
        size = {name: photo[name] for name in ("width", "height")}
        images.append({"id": number, "file_name": photo["file"], **size})
        for box in photo["truth"]:
            category = classes.index(box["class"])
            boxes.append({"id": len(boxes) + 1, "image_id": number, "category_id": category})
            boxes[-1] |= {"bbox": box["box"], "area": box["box"][2] * box["box"][3], "iscrowd": 0}
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    labels = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(labels))


def test_bundle_is_studied_without_extras(installed: Installation) -> None:
    folder = installed.folder / "labelled"
    folder.mkdir()
    write_golden_labels(folder)
    data = ("--data", "labelled/labels.json")
    for arguments in (
        ("stress", "drinks-int8", *data, "--conditions", "dark", "--severities", "1"),
        ("propose", "drinks-int8", *data, "--out", "proposed.json"),
        ("correct", *data, "--corrections", "proposed.json", "--out", "corrected.json"),
    ):
        done = installed.run("shelfcount", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_verb_is_in_the_table() -> None:
    assert set(typer.main.get_command(app).commands) == set(EXTRA_OF_VERB)  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", sorted(EXTRA_OF_VERB))
def test_verb_works_or_names_its_extra(verb: str, installed: Installation) -> None:
    extra = EXTRA_OF_VERB[verb]
    done = installed.run("shelfcount", verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"shelfcount {verb}" in done.stdout
    # No argument is given, so a verb that needs an extra says so before it asks for arguments.
    done = installed.run("shelfcount", verb)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    if extra is None:
        assert "Missing" in done.stderr
    else:
        needed = f"`{verb}` needs the {extra} extra: pip install 'shelfcount[{extra}]'"
        assert needed in " ".join(done.stderr.split())
