"""What the design asks of the source as a whole, read from its syntax trees."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "shelfcount"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room is a folder of the package or a module beside the folders. It imports only rooms of the
# lines above its own; rooms of one line are siblings and do not import each other.
ORDER = (
    ("records",),
    ("words", "files", "machine", "validation"),
    ("stamp",),
    ("vision",),
    ("runtime",),
    ("data", "metrics", "shelf"),
    ("config",),
    ("checks", "labels", "synthetic"),
    ("drawing",),
    ("counting",),
    ("training",),
    ("deploy",),
    ("studies", "speed"),
    ("report",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
# A side branch: what draws and what counts for people is not for training and deployment.
ONLY_FOR = {"drawing": {"counting", "report", "cli"}, "counting": {"cli"}}
# The configuration is for what trains, studies and the command line; leaves take plain parameters.
WITHOUT_CONFIG = {"runtime", "metrics", "shelf", "drawing", "counting", "data"}
WITHOUT_TORCH = {
    *("records", "words", "files", "machine", "stamp", "vision", "runtime", "data", "metrics"),
    *("shelf", "checks", "labels", "synthetic", "drawing", "counting", "report"),
}
TORCH = {"torch", "torchvision", "pytorch_lightning", "timm"}
# What apps on phones repeat in their own language needs little. Photos are opened with Pillow.
LIGHT = {"numpy", "cv2", "ai_edge_litert", "PIL"}
# The planogram, a file that people write, is validated; apps get it as plain data.
VALIDATED = {"shelfcount/shelf/planogram.py"}
LIGHT_ROOMS = {"records", "vision", "runtime", "shelf"}
EXITS = {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}
# Extras of pyproject.toml that a room may use beside the main dependencies.
EXTRAS = {
    "data": ["labels"],
    "checks": ["labels"],
    "labels": ["labels"],
    "metrics": ["labels"],
    "training": ["train"],
    "deploy": ["train", "export"],
    "speed": ["train"],
    "studies": ["train", "ray"],
}
MAX_LINES = 420
MAX_CLI_LINES = 300


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from shelfcount import config` names the room in the alias.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def inner_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of what the functions of a module import."""
    for outer in ast.walk(ast.parse(path.read_text())):
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(outer):
                if isinstance(node, ast.Import):
                    yield from ((node.lineno, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield node.lineno, node.module or ""


def outside(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level name) of what a module imports from other distributions."""
    for line, name in imports(path):
        top = name.split(".")[0]
        if top != "shelfcount" and top not in sys.stdlib_module_names:
            yield line, top


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements_of(extra: str) -> list[str]:
    """Requirements of an extra, those of extras that it includes too."""
    found: list[str] = []
    for text in project()["optional-dependencies"][extra]:
        requirement = Requirement(text)
        included = requirement.extras if requirement.name == "shelfcount" else ()
        found += [t for e in included for t in requirements_of(e)] if included else [text]
    return found


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_room_has_its_place() -> None:
    assert {room(p) for p in MODULES} - {"__init__", "__main__"} == set(LEVEL)


def test_imports_go_one_way() -> None:
    wrong = []
    for path in (p for p in MODULES if room(p) in LEVEL):
        here = room(path)
        for line, name in imports(path):
            target = name.split(".")[1] if name.startswith("shelfcount.") else ""
            if target not in LEVEL or target == here:
                continue
            if (
                LEVEL[target] >= LEVEL[here]
                or here not in ONLY_FOR.get(target, {here})
                or (target == "config" and here in WITHOUT_CONFIG)
            ):
                wrong.append(f"{place(path, line)} imports {target}")
    assert wrong == []


def test_functions_import_packages_of_extras_alone() -> None:
    base = names(project()["dependencies"])
    providers = importlib.metadata.packages_distributions()
    wrong = []
    for path in (p for p in MODULES if room(p) not in {"cli", "__init__"}):
        for line, name in inner_imports(path):
            top = name.split(".")[0]
            known = {canonicalize_name(n) for n in providers.get(top, [])}
            if top == "shelfcount":
                allowed = any(name.startswith(f"shelfcount.{heavy}") for heavy in HEAVY)
            else:
                allowed = top not in sys.stdlib_module_names and not known & base
            if not allowed:
                wrong.append(f"{place(path, line)} imports {name} inside a function")
    assert wrong == []


# Modules that import torch: importing one inside a function keeps torch away from its caller.
HEAVY = (
    "training.",
    *("deploy.bundle", "deploy.convert", "deploy.export", "deploy.ranges"),
    "studies.",
)


def test_torch_stays_in_its_rooms() -> None:
    wrong = [
        f"{place(p, line)} imports {top}"
        for p in MODULES
        if room(p) in WITHOUT_TORCH
        for line, top in outside(p)
        if top in TORCH
    ]
    assert wrong == []


def test_light_rooms_import_few_packages() -> None:
    wrong = [
        f"{place(p, line)} imports {top}"
        for p in MODULES
        if room(p) in LIGHT_ROOMS
        for line, top in outside(p)
        if top not in LIGHT | ({"pydantic"} if str(p.relative_to(ROOT)) in VALIDATED else set())
    ]
    assert wrong == []


@pytest.mark.parametrize("module", ["shelfcount.runtime.bundle", "shelfcount.shelf.count"])
def test_torch_stays_away_when_counting(module: str) -> None:
    heavy = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'tensorflow', 'jax', 'litert_torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_command_line_prints_or_exits() -> None:
    wrong = []
    for path in (p for p in MODULES if room(p) != "cli"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in EXITS:
                wrong.append(f"{place(path, node.lineno)} calls {ast.unparse(node.func)}")
    assert wrong == []


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert [place(p, 1) for p in MODULES if p.stem in sys.stdlib_module_names] == []


def test_the_package_is_the_only_one() -> None:
    # A wheel that installs a top-level `tests` or `export` harms its users.
    assert [p.parent.name for p in ROOT.glob("[!.]*/__init__.py")] == ["shelfcount"]
    assert all((p.parent / "__init__.py").exists() for p in MODULES)


def test_every_folder_of_the_package_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    assert sorted(setuptools["packages"]) == sorted({*folders, *setuptools["package-dir"]})


def test_public_names_have_docstrings() -> None:
    missing = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            missing.append(place(path, 1))
        for node in tree.body:
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                missing.append(f"{place(path, node.lineno)} {node.name}")
    assert missing == []


def test_public_names_identify() -> None:
    places = defaultdict(set)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined = [node.name]
            elif isinstance(node, ast.Assign):
                defined = [
                    n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)
                ]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined = [node.target.id]
            else:
                defined = []
            for name in defined:
                if not name.startswith("_"):
                    places[name].add(str(path.relative_to(PACKAGE)))
    assert {name: sorted(at) for name, at in places.items() if len(at) > 1} == {}


def test_arrays_have_a_dtype() -> None:
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                annotations = [
                    node.returns,
                    *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)),
                ]
            else:
                annotations = [node.annotation] if isinstance(node, ast.AnnAssign) else []
            for annotation in filter(None, annotations):
                if any(ast.unparse(part) == "np.ndarray" for part in ast.walk(annotation)):
                    wrong.append(f"{place(path, node.lineno)}: {ast.unparse(annotation)}")
    assert wrong == []


def test_files_are_short() -> None:
    lengths = {str(p.relative_to(ROOT)): p.read_text().count("\n") for p in MODULES}
    limit = {name: MAX_CLI_LINES if "/cli/" in name else MAX_LINES for name in lengths}
    assert {name: n for name, n in lengths.items() if n > limit[name]} == {}


def help_texts() -> Iterator[tuple[str, str]]:
    """(place, text) of each help text and each description of a setting."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).split(".")[-1]
            for word in node.keywords:
                if (called, word.arg) in {
                    ("Option", "help"),
                    ("Argument", "help"),
                    ("Field", "description"),
                } and isinstance(word.value, ast.Constant):
                    yield place(path, node.lineno), str(word.value.value)


def docstrings() -> Iterator[tuple[str, str]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = ast.get_docstring(node)
                if text:
                    yield place(path, getattr(node, "lineno", 1)), text


def test_texts_say_what_they_are_about() -> None:
    texts = [*help_texts(), *docstrings()]
    assert len(texts) > 500
    # An entry of `Args` is "name: text".
    of = re.compile(r"^(\s*\w+: )?Of (an?|the|each|all|this|its|what|\w+)\b", re.MULTILINE)
    assert [f"{at}: {text[:60]}" for at, text in texts if of.search(text)] == []
    assert [f"{at}: {text[:60]}" for at, text in texts if "so many" in text] == []
    assert [f"{at}: {text[:60]}" for at, text in texts if re.search(r" else\.(\s|$)", text)] == []


def test_no_text_cites_an_issue() -> None:
    wrong = []
    for path in [*MODULES, *ROOT.glob("export/web/*.js"), *ROOT.glob("benchmarks/**/*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(r"\bissue #?\d", line):
                wrong.append(f"{place(path, number)}: {line.strip()}")
    assert wrong == []


def test_what_is_imported_is_declared() -> None:
    main = project()["dependencies"]
    providers = importlib.metadata.packages_distributions()
    wrong = []
    for path in MODULES:
        extras = [text for extra in EXTRAS.get(room(path), []) for text in requirements_of(extra)]
        declared = names([*main, *extras])
        for line, top in outside(path):
            if not declared & {canonicalize_name(name) for name in providers.get(top, [])}:
                wrong.append(f"{place(path, line)} imports {top}")
    assert wrong == []


def test_the_lock_pins_what_is_declared() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", lock.strip())
    pinned = r"[a-z0-9.-]+==[^\s;@]+( ; \S.*?)?( \\\n    --hash=sha256:[0-9a-f]{64})+"
    assert [entry for entry in entries if not re.fullmatch(pinned, entry)] == []
    pins = dict(entry.split()[0].split("==") for entry in entries)
    main, optional = project()["dependencies"], project()["optional-dependencies"]
    locked = ("labels", "train", "export", "ray", "docs", "dev")
    declared = [Requirement(text) for text in [*main, *(t for e in locked for t in optional[e])]]
    # A version of 0 fits nowhere, so a package that is not pinned is reported like one that does
    # not fit.
    assert [
        str(r)
        for r in declared
        if r.name != "shelfcount"
        and not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))
    ] == [], "run `make lock`"
