"""What the design asks of the source as a whole, read from its syntax trees."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "shelfcount"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each part may import those before it. A part is a folder of the package or a module beside them.
ORDER = (
    *("records", "words", "machine", "stamp", "vision", "config", "data", "training"),
    *("runtime", "deploy", "evaluation", "shelf", "report", "console", "cli"),
)
# What goes onto a phone or a small server reaches less than the order allows.
ONLY = {"runtime": {"records", "words", "machine", "stamp", "vision"}}
WITHOUT_TORCH = ("records", "words", "vision", "runtime", "shelf")
LIGHT = {"numpy", "cv2", "ai_edge_litert"}
EXITS = {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}
# Extras of pyproject.toml that a part may count on beside the main dependencies.
EXTRAS = {
    "data": ["train"],
    "training": ["train"],
    "evaluation": ["train", "ray"],
    "deploy": ["train", "export"],
}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from shelfcount import config` names the part in the alias.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def outside(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level name) of what a module imports from other distributions."""
    for line, name in imports(path):
        top = name.split(".")[0]
        if top != "shelfcount" and top not in sys.stdlib_module_names:
            yield line, top


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_part_has_its_place() -> None:
    assert {part(p) for p in MODULES} - {"__init__"} == set(ORDER)


def test_imports_go_one_way() -> None:
    wrong = []
    for path in (p for p in MODULES if part(p) in ORDER):
        allowed = ONLY.get(part(path), set(ORDER[: ORDER.index(part(path))])) | {part(path)}
        for line, name in imports(path):
            target = name.split(".")[1] if name.startswith("shelfcount.") else ""
            if target in ORDER and target not in allowed:
                wrong.append(f"{where(path, line)} imports {target}")
    assert wrong == []


def test_light_parts_import_numpy_opencv_and_litert_alone() -> None:
    wrong = [
        f"{where(p, line)} imports {top}"
        for p in MODULES
        if part(p) in WITHOUT_TORCH
        for line, top in outside(p)
        if top not in LIGHT
    ]
    assert wrong == []


@pytest.mark.parametrize("module", ["shelfcount.runtime.bundle", "shelfcount.shelf.count"])
def test_torch_stays_away_when_counting(module: str) -> None:
    heavy = f"import sys, {module}; print([m for m in ('torch', 'tensorflow', 'jax', 'litert_torch') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_only_the_command_line_prints_or_exits() -> None:
    wrong = []
    for path in (p for p in MODULES if p.name != "cli.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in EXITS:
                wrong.append(f"{where(path, node.lineno)} calls {ast.unparse(node.func)}")
    assert wrong == []


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert [where(p, 1) for p in MODULES if p.stem in sys.stdlib_module_names] == []


def test_the_package_is_the_only_one() -> None:
    # A wheel that installs a top-level `tests` or `export` harms its users.
    assert [p.parent.name for p in ROOT.glob("[!.]*/__init__.py")] == ["shelfcount"]
    assert all((p.parent / "__init__.py").exists() for p in MODULES)


def test_every_folder_of_the_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    assert sorted(listed) == sorted({*folders, "shelfcount.web"})


def test_public_names_have_docstrings() -> None:
    missing = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            missing.append(where(path, 1))
        for node in tree.body:
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                missing.append(f"{where(path, node.lineno)} {node.name}")
    assert missing == []


def test_what_is_imported_is_declared() -> None:
    main, optional = project()["dependencies"], project()["optional-dependencies"]
    providers = importlib.metadata.packages_distributions()
    wrong = []
    for path in MODULES:
        declared = names(
            [*main, *(text for extra in EXTRAS.get(part(path), []) for text in optional[extra])]
        )
        for line, top in outside(path):
            if not declared & {canonicalize_name(name) for name in providers.get(top, [])}:
                wrong.append(f"{where(path, line)} imports {top}")
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
