"""Web server: it serves the page and the bundle only, and the page loads nothing from elsewhere."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shelfcount.deploy.bundle import write_bundle
from shelfcount.deploy.serve import MIME_TYPES, open_server, page_folder
from shelfcount.records import AnchorLevel, ModelSpec, ShelfcountError

SPEC = ModelSpec(
    "tiny", "mobilenet_v2_050", ("cola", "tea"), 64, 64, (AnchorLevel(8, ((20.0, 10.0),)),)
)
MODEL = b"TFL3 not read by the server" * 5
PAGE = Path(__file__).parents[1] / "export" / "web"
VENDOR = PAGE / "vendor" / "litert"
# Files that the service worker does not store: texts for people, and sw.js, which the browser
# stores itself.
NOT_STORED = {"sw.js", "README.md", "vendor/litert/README.md", "vendor/litert/LICENSE"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "shelf"
    write_bundle(folder, SPEC, {"model.tflite": MODEL, "model-raw.tflite": MODEL}, "int8", {})
    (folder / "notes.txt").write_text("in the folder, but not a file of the bundle")
    return folder


@pytest.fixture(scope="module")
def port(bundle: Path) -> Iterator[int]:
    with open_server(bundle, PAGE, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(
    port: int, path: str, method: str = "GET", headers: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Return status, header and body of a response.

    The path is sent unchanged, unlike by the clients of the standard library.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(f"{method} {path} HTTP/1.0\r\n{headers}\r\n".encode())
        status = int(answer.readline().split()[1])
        lines = iter(answer.readline, b"\r\n")
        header = {
            name.lower(): value.strip()
            for name, _, value in (line.decode().partition(":") for line in lines)
        }
        return status, header, answer.read()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/app.js?v=2#top", "text/javascript; charset=utf-8"),
        ("/manifest.webmanifest", "application/manifest+json"),
        ("/vendor/litert/litert_wasm_compat_internal.wasm", "application/wasm"),
        ("/bundle/model.json", "application/json"),
        ("/bundle/model.tflite", "application/octet-stream"),
    ],
)
def test_page_and_bundle_are_served_with_their_types(
    port: int, bundle: Path, path: str, kind: str
) -> None:
    status, header, body = ask(port, path)
    name = path.split("?")[0].strip("/") or "index.html"
    file = bundle / name.removeprefix("bundle/") if name.startswith("bundle/") else PAGE / name
    assert (status, header["content-type"], body) == (200, kind, file.read_bytes())
    assert (header["cache-control"], header["x-content-type-options"]) == ("no-cache", "nosniff")


def test_head_returns_the_length_and_no_body(port: int) -> None:
    status, header, body = ask(port, "/bundle/model.tflite", "HEAD")
    assert (status, header["content-length"], body) == (200, str(len(MODEL)), b"")


def test_unchanged_files_are_not_sent_again(port: int) -> None:
    modified = ask(port, "/app.js")[1]["last-modified"]
    assert ask(port, "/app.js", headers=f"If-Modified-Since: {modified}\r\n")[0] == 304


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/bundle/../../../pyproject.toml",
        "/..\\pyproject.toml",
        "//etc/passwd",
        "/bundle/notes.txt",
        "/bundle/",
        "/bundle",
        "/vendor/",
        "/nothing.js",
        "/index.html/",
        "/%00",
    ],
)
def test_other_files_are_not_served(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert b"This file is not part of the page or the bundle" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_supported(port: int, method: str) -> None:
    assert ask(port, "/", method)[0] == 501


def test_a_port_in_use_is_refused(port: int, bundle: Path) -> None:
    with pytest.raises(
        ShelfcountError,
        match=rf"cannot listen on 127\.0\.0\.1:{port}: .*\. Choose another --port, "
        "or stop the program that uses this one",
    ):
        open_server(bundle, PAGE, port=port)


def test_an_impossible_port_is_refused(bundle: Path) -> None:
    with pytest.raises(ShelfcountError, match=r"cannot listen on 127\.0\.0\.1:70000"):
        open_server(bundle, PAGE, port=70000)


def test_broken_bundle_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ShelfcountError, match="is not a bundle"):
        open_server(tmp_path, PAGE, port=0)


def test_a_folder_without_the_page_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ShelfcountError,
        match=re.escape(f"'{tmp_path}' is not the folder of the web page: it has no index.html"),
    ):
        open_server(bundle, tmp_path, port=0)


# ---------------------------------------------------------------- folder of the page


def page_files() -> set[str]:
    return {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}


def test_page_is_found() -> None:
    assert page_folder() == PAGE


def test_every_file_has_a_type() -> None:
    assert {Path(name).suffix for name in page_files()} - set(MIME_TYPES) == {""}, (
        "only the licence has no suffix"
    )


def test_everything_is_stored_for_offline_use() -> None:
    listed = re.search(r"const FILES = \[(.*?)\]", (PAGE / "sw.js").read_text(), re.DOTALL)
    assert listed
    stored = set(re.findall(r'"([^"]+)"', listed[1]))
    assert {
        name for name in stored if not name.startswith("bundle/")
    } == page_files() - NOT_STORED - {"index.html"} | {"./"}


def test_policy_allows_no_other_host() -> None:
    policy = re.search(
        r'Content-Security-Policy"\s+content="([^"]+)"', (PAGE / "index.html").read_text()
    )
    assert policy
    rules = {name: sources for name, *sources in (rule.split() for rule in policy[1].split(";"))}
    assert rules["default-src"] == ["'none'"]
    assert rules["connect-src"] == ["'self'"]
    allowed = {source for sources in rules.values() for source in sources}
    assert allowed == {"'none'", "'self'", "'wasm-unsafe-eval'", "blob:"}


def test_no_other_host_is_named() -> None:
    # The only address is the namespace of SVG, which is not fetched.
    files = [
        name
        for name in page_files()
        if not name.startswith("vendor/") and Path(name).suffix in (".html", ".js", ".css", ".svg")
    ]
    addresses = {
        address
        for name in files
        for address in re.findall(r"https?://[^\s\"')]+", (PAGE / name).read_text())
    }
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_vendored_files_have_the_listed_checksums() -> None:
    readme = (VENDOR / "README.md").read_text()
    listed = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", readme))
    actual = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.suffix in (".js", ".wasm")
    }
    assert listed == actual
