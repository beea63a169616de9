"""Make the pages of the reference from the code, and adapt links, while mkdocs builds the site.

mkdocs calls the functions named ``on_...``. The generated pages exist in the site only, so they
cannot become out of date. Nothing here imports torch: the site builds in an environment without it.
"""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import shelfcount
from shelfcount.cli.app import VERBS, Verb, app
from shelfcount.config import Config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
# Not `repo_url` of mkdocs.yml, with which every reader's browser asks a server for its stars.
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
# The order of the results in the navigation; a page that is not listed comes last.
QUESTIONS = ("accuracy", "baseline", "speed", "quantization", "robustness", "repeats", "shelf")
# Public functions and classes in the order of the page; mkdocstrings finds those of `__all__`.
API = ("count", "check", "train", "export", "evaluate", "ShelfCount")
# What the functions return.
RETURNED = (
    "shelfcount.counting.results.ShelfCounts",
    "shelfcount.counting.plan_verdict.PlanVerdict",
    "shelfcount.studies.label_check.LabelCheck",
    "shelfcount.deploy.export.ExportedBundle",
    "shelfcount.studies.model_evaluation.ModelEvaluation",
)
SCHEMAS = {
    "count": (
        "count --json and merge --json",
        "`shelfcount count --json` and `shelfcount merge --json` write one object of this form. "
        "Boxes are `[x, y, width, height]` in pixels of the upright photo. Row 0 is the top row, "
        "position 0 is the leftmost product of its row. `merged` is `null` for `count`.",
    ),
    "model": (
        "model.json",
        "The specification of a bundle: everything that an app needs to turn pixels into counts, "
        "and the sha256 of every other file of the bundle.",
    ),
    "golden": (
        "golden.json",
        "The detections that an app must reproduce on the golden photos of a bundle, and the "
        "tolerance that it must meet.",
    ),
    "corrections": (
        "Corrections",
        "Changes to the labels of one data set, each with a reason. `shelfcount propose` writes "
        "such a file, the page for decisions saves one, and `shelfcount correct` applies it. A "
        "file is applied only to the labels whose fingerprint it states.",
    ),
    "plan": (
        "Planograms",
        "What must be on a shelf, rows from top to bottom and products from left to right. "
        "`shelfcount planogram --learn` writes such a file from photos of a correct shelf. Put "
        'the path of the schema under the key `"$schema"`: editors then complete and check it.',
    ),
}


# ------------------------------------------------------------------------------ hooks


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the results in the navigation, the index first."""
    listed = ["results/index.md", *(f"results/{path.name}" for path in results_pages())]
    config.nav = [{"Results": listed} if "Results" in entry else entry for entry in config.nav]
    return config


def results_pages() -> list[Path]:
    """Return the pages of the results in the order of the navigation, without the index."""
    order = {name: place for place, name in enumerate(QUESTIONS)}
    pages = [path for path in (DOCS / "results").glob("*.md") if path.stem != "index"]
    return sorted(pages, key=lambda path: (order.get(path.stem, len(order)), path.stem))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures of the results."""
    pages = {
        "reference/verbs.md": verbs_page(),
        "reference/configuration.md": configuration_page(),
        "reference/python.md": python_page(),
        **{f"reference/schemas/{name}.md": schema_page(name) for name in SCHEMAS},
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for picture in sorted([*RESULTS.glob("*.png"), *RESULTS.glob("*.jpg")]):
        place = f"results/figures/{picture.name}"
        files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that work in the repository work in the site too.

    Pictures of the results are part of the site. A link to another file outside of ``docs/`` leads
    to the repository.
    """
    folder = (DOCS / page.file.src_uri).parent
    if page.file.src_uri == "results/index.md":
        markdown += "\n" + "".join(f"- [{_title(path)}]({path.name})\n" for path in results_pages())

    def adapted(match: re.Match[str]) -> str:
        text, target = match["text"], (folder / match["target"]).resolve()
        if target.is_relative_to(DOCS) or not target.exists():
            return match[0]
        if target.parent == RESULTS and target.suffix in (".png", ".jpg"):
            up = "../" * page.file.src_uri.count("/")
            return f"[{text}]({up}results/figures/{target.name})"
        kind = "tree" if target.is_dir() else "blob"
        return f"[{text}]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()})"

    return re.sub(
        r"\[(?P<text>[^\]]*)\]\((?P<target>\.\./[^)#\s]+)(?:#[^)\s]*)?\)", adapted, markdown
    )


def _title(path: Path) -> str:
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


# ------------------------------------------------------------------------------ verbs


def verbs_page() -> str:
    """Return the reference of the command line, generated from the typer app."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parts = [
        "# Verbs\n\n"
        "`shelfcount VERB --help` prints the same texts, and `shelfcount --install-completion` "
        "completes verbs and options in your shell. Every verb writes progress to stderr. The exit "
        "status is 0 for success, 1 for a negative verdict (such as unfit data or a missed "
        "budget), 2 for wrong use or a missing extra, 130 after Ctrl+C and 143 after SIGTERM.\n"
    ]
    for panel in dict.fromkeys(verb.panel for verb in VERBS):
        names = [verb.name for verb in VERBS if verb.panel == panel]
        lines = [f"- [`{n}`](#{n}): {_first_sentence(commands[n].help)}" for n in names]
        parts.append("\n".join([f"**{panel}**\n", *lines, ""]))
    parts += [_verb(verb, commands[verb.name]) for verb in VERBS]
    return "\n".join(parts)


def _verb(verb: Verb, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    words = [f"shelfcount {verb.name}", *(_placeholder(p) for p in arguments)]
    words += [f"{p.opts[0]} {_kind(p).upper()}" for p in options if p.required]
    text = [f"## {verb.name}\n", f"```\n{' '.join(words)} [OPTIONS]\n```\n"]
    text += [f"{paragraph}\n" for paragraph in inspect.cleandoc(command.help).split("\n\n")]
    if verb.extra:
        text.append(
            f"It needs the extra `{verb.extra}`, see [Installation](../start/install.md#extras).\n"
        )
    if arguments:
        rows = [[f"`{_placeholder(p)}`", _sentence(p.help)] for p in arguments]
        text.append(_table(("Argument", ""), rows))
    if options:
        rows = [
            [
                ", ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts)),
                _value(p),
                _sentence(p.help),
                _default(p),
            ]
            for p in options
        ]
        text.append(_table(("Option", "Value", "", "Default"), rows))
    text.append(f"Example:\n\n```\nshelfcount {verb.example}\n```\n")
    return "\n".join(text)


def _placeholder(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _kind(parameter: Any) -> str:
    """Return what an option takes: "number", "path", or "" for a switch."""
    if parameter.is_flag:
        return ""
    kind = parameter.type_descriptor.annotation
    many = get_origin(kind) is list
    kind = next(iter(get_args(kind)), kind) if get_args(kind) else kind
    names = {int: "integer", float: "number", str: "text", Path: "path"}
    name = names.get(kind, getattr(kind, "__name__", "text").lower())
    return f"{name}, repeatable" if many else name


def _value(parameter: Any) -> str:
    """Return the kind of an option's value with its range."""
    kind, low, high = _kind(parameter), parameter.min, parameter.max
    if parameter.is_flag or low is None:
        return kind
    return f"{kind}, at least {low:g}" if high is None else f"{kind}, {low:g} to {high:g}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    empty = value is None or value == "" or value is False or callable(value) or value in ([], ())
    return "" if empty else f"`{value}`"


# ------------------------------------------------------------------------------ configuration


def configuration_page() -> str:
    """Return the reference of the configuration, generated from the pydantic models."""
    parts = [
        "# Configuration\n\n"
        "`shelfcount train --config FILE` reads these settings from a TOML file, and "
        "`--set train.epochs=30` changes one. Unknown keys and wrong values are refused, all of "
        "them in one message. Every run keeps its complete configuration in `config.toml`.\n\n"
        "```toml\n[train]\nepochs = 30\nbatch = 8\n\n[augment]\nmosaic = 0.3\n```\n"
    ]
    for section, field in Config.model_fields.items():
        model = field.annotation
        text = inspect.cleandoc(model.__doc__ or "")
        rows = [
            [f"`{section}.{name}`", _allowed(one), _toml(one.default), one.description or ""]
            for name, one in model.model_fields.items()
        ]
        parts.append(
            f"## {section}\n\n{text}\n\n" + _table(("Setting", "Value", "Default", ""), rows)
        )
    return "\n".join(parts)


def _allowed(field: Any) -> str:
    kind = field.annotation
    if get_args(kind) and get_origin(kind) is not tuple:
        return ", ".join(f"`{json.dumps(v)}`" for v in get_args(kind))
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    text = "list" if get_origin(kind) is tuple else names.get(kind, "text")
    limits = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(limit, name, None) is not None
    }
    if "ge" in limits and "le" in limits:
        return f"{text}, {limits['ge']:g} to {limits['le']:g}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join([text, *(f"{words[name]} {limit:g}" for name, limit in limits.items())])


def _toml(value: Any) -> str:
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


# ------------------------------------------------------------------------------ Python and schemas


def python_page() -> str:
    """Return the page of the Python API; mkdocstrings fills it.

    Raises:
        ValueError: If a public name is missing in `API`.
    """
    if set(API) != set(shelfcount.__all__):
        raise ValueError(f"API must contain {shelfcount.__all__}, got {API}")
    head = (
        "# Python API\n\n"
        "`import shelfcount` loads nothing else: each name is imported on first use. Counting "
        "needs NumPy, OpenCV and LiteRT, but not PyTorch. `check` and `evaluate` need the extra "
        "`labels`, `train` the extra `train`, and `export` the extra `export`. "
        "[Count products](../guides/count.md#in-python) and "
        "[Train and export](../guides/train.md#in-python) have examples.\n"
    )
    public = [f"::: shelfcount.{name}\n    options: {{heading: {name}}}\n" for name in API]
    functions = [text for name, text in zip(API, public, strict=True) if name.islower()]
    # Users never construct a result, so its signature is hidden (style.css).
    results = [text for text in public if text not in functions]
    results += [f"::: {name}\n" for name in RETURNED]
    return "\n".join([head, *functions, '<div class="results" markdown>\n', *results, "</div>\n"])


def schema_page(name: str) -> str:
    """Return the page of a JSON schema: a table of its fields, and the schema itself."""
    title, text = SCHEMAS[name]
    file = f"{name}.schema.json"
    schema = json.loads((DOCS / "reference" / "schemas" / file).read_text(encoding="utf-8"))
    rows = list(_fields(schema, schema, "", set()))
    return (
        f"# {title}\n\n{text}\n\n[Download {file}]({file})\n\n"
        + _table(("Field", "Type", ""), rows)
        + f"\n## Schema\n\n```json\n{json.dumps(schema, indent=1, ensure_ascii=False)}\n```\n"
    )


def _fields(
    part: Mapping[str, Any], schema: Mapping[str, Any], prefix: str, shown: set[str]
) -> Iterator[list[str]]:
    """Yield path, type and description of each field, depth first; a definition only once."""
    name = part.get("$ref", "")
    if name in shown:
        return
    shown |= {name} - {""}
    part = _resolved(part, schema)
    for key, value in part.get("properties", {}).items():
        whole = _resolved(value, schema)
        optional = "" if key in part.get("required", ()) else "Optional. "
        yield [f"`{prefix}{key}`", _schema_type(whole), optional + whole.get("description", "")]
        yield from _fields(value, schema, f"{prefix}{key}.", shown)
    for choice in part.get("anyOf", ()):
        yield from _fields(choice, schema, prefix, shown)
    if isinstance(part.get("items"), Mapping):
        yield from _fields(part["items"], schema, f"{prefix.removesuffix('.')}[].", shown)


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in part:
        return part
    own = {key: value for key, value in part.items() if key != "$ref"}
    return {**schema["$defs"][part["$ref"].rsplit("/", 1)[1]], **own}


def _schema_type(part: Mapping[str, Any]) -> str:
    if "const" in part:
        return f"`{json.dumps(part['const'])}`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_schema_type(choice) for choice in part["anyOf"]))
    kind = part.get("type", "object")
    return " or ".join(kind) if isinstance(kind, list) else kind


# ------------------------------------------------------------------------------ words


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0]


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n"
        for line in lines
    )
