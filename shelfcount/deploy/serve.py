"""HTTP server for the web page that runs a bundle in a phone's browser.

It serves the files of the page and of the bundle, and no others. Any static web server can be used
instead: put the bundle's files into a folder ``bundle`` next to index.html.
"""

from __future__ import annotations

import http.server
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shelfcount.records import ShelfcountError
from shelfcount.runtime.bundle import read_bundle

# MIME types by suffix. Browsers reject modules, and WebAssembly files that are compiled while they
# load, with other types. The standard library's mimetypes depends on the tables of the machine.
MIME_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".tflite": "application/octet-stream",
}


def page_folder() -> Path:
    """Find the folder of the web page.

    Returns:
        Folder ``web`` of the installed package, or ``export/web`` of a checkout.

    Raises:
        ShelfcountError: If the page is in neither of them.
    """
    package = Path(__file__).parents[1]
    folders = (package / "web", package.parent / "export" / "web")
    for folder in folders:
        if (folder / "index.html").is_file():
            return folder
    raise ShelfcountError(
        f"the web page is neither in '{folders[0]}' nor in '{folders[1]}'. "
        "Install shelfcount again."
    )


def open_server(
    bundle: Path, page: Path, host: str = "127.0.0.1", port: int = 8000
) -> http.server.ThreadingHTTPServer:
    """Create a server for the web page and a bundle.

    Args:
        bundle: Folder or name of the bundle, which is served at ``/bundle/``.
        page: Folder of the page, which is served at ``/``; `page_folder` finds it.
        host: Address to listen on. The default can be reached from this machine only.
        port: Port to listen on; 0 for any free port.

    Returns:
        Server that listens on ``server_port``. Call ``serve_forever()`` on it to run it.

    Raises:
        ShelfcountError: If the page or the bundle cannot be used, or the server cannot listen on
            the port.
    """
    if not (page / "index.html").is_file():
        raise ShelfcountError(f"'{page}' is not the folder of the web page: it has no index.html")
    handler = partial(_Handler, _addresses(page, bundle))
    try:
        return http.server.ThreadingHTTPServer((host, port), handler)
    except (OSError, OverflowError) as error:
        raise ShelfcountError(
            f"cannot listen on {host}:{port}: {error}. "
            "Choose another --port, or stop the program that uses this one."
        ) from error


def _addresses(page: Path, bundle: Path) -> dict[str, Path]:
    """Return the path of every file that is served, by its path in the URL."""
    files = {
        f"/{path.relative_to(page).as_posix()}": path for path in page.rglob("*") if path.is_file()
    }
    opened = read_bundle(bundle)
    files |= {f"/bundle/{name}": opened.path / name for name in ("model.json", *opened.files)}
    return {**files, "/": page / "index.html"}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Request handler that answers GET and HEAD for known files, without listings and logs.

    Args:
        addresses: Path of every file that is served, by its path in the URL.
        arguments: Arguments of ``http.server.SimpleHTTPRequestHandler``.
    """

    extensions_map = MIME_TYPES

    def __init__(self, addresses: Mapping[str, Path], *arguments: object) -> None:
        self.addresses = addresses
        super().__init__(*arguments)  # type: ignore[arg-type]

    def send_head(self) -> object:  # type: ignore[override]
        if self._address() not in self.addresses:
            self.send_error(404, "This file is not part of the page or the bundle")
            return None
        return super().send_head()

    def translate_path(self, path: str) -> str:
        return str(self.addresses[self._address()])

    def _address(self) -> str:
        return unquote(urlsplit(self.path).path)

    def end_headers(self) -> None:
        # Browsers ask for each file again, so that they load a new bundle. Unchanged files are not
        # sent again.
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing, since only the command line prints."""
