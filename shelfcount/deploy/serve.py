"""A small server for the web page that runs a bundle in the phone's browser.

It knows a fixed list of files, those of the page and of the bundle, and gives away nothing else.
Any static host does as well: the page with the bundle's files in a folder ``bundle`` beside index.html.
"""

from __future__ import annotations

import http.server
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import shelfcount
from shelfcount.records import ShelfcountError
from shelfcount.runtime.bundle import read_bundle

# The MIME types that browsers insist on: a module, or a WebAssembly file that is compiled while it
# loads, is refused under another. mimetypes of the standard library reads the machine's tables, which differ.
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
    """Where the page lies: in the package when installed from a wheel, in ``export/web`` in a checkout.

    Raises:
        ShelfcountError: If it is in neither.
    """
    package = Path(shelfcount.__file__).parent
    folders = (package / "web", package.parent / "export" / "web")
    for folder in folders:
        if (folder / "index.html").is_file():
            return folder
    raise ShelfcountError(
        f"the web page must lie in '{folders[0]}' or '{folders[1]}', found in neither. Install shelfcount again."
    )


def open_server(
    bundle: Path, page: Path, host: str = "127.0.0.1", port: int = 8000
) -> http.server.ThreadingHTTPServer:
    """Bind a server; ``serve_forever()`` of what comes back runs it.

    Args:
        bundle: Folder of the bundle, found at ``/bundle/``.
        page: Folder of the page, found at ``/``; `page_folder` knows one.
        host: Address to listen on; the default is reached from this machine alone.
        port: 0 for any free one; ``server_port`` of the result tells which.

    Raises:
        ShelfcountError: If the bundle or the page cannot be used or the port cannot be had.
    """
    if not (page / "index.html").is_file():
        raise ShelfcountError(f"'{page}' must hold the web page, but has no index.html")
    handler = partial(_Handler, _addresses(page, bundle))
    try:
        return http.server.ThreadingHTTPServer((host, port), handler)
    except (OSError, OverflowError) as error:
        raise ShelfcountError(
            f"cannot listen on {host}:{port}: {error}. Choose another --port, or end what uses it."
        ) from error


def _addresses(page: Path, bundle: Path) -> dict[str, Path]:
    """The path in a URL of every file there is."""
    files = {
        f"/{path.relative_to(page).as_posix()}": path for path in page.rglob("*") if path.is_file()
    }
    files |= {
        f"/bundle/{name}": bundle / name for name in ("model.json", *read_bundle(bundle).files)
    }
    return {**files, "/": page / "index.html"}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """GET and HEAD of known files; no listing, no log.

    Args:
        addresses: The path in a URL of every file there is.
    """

    extensions_map = MIME_TYPES

    def __init__(self, addresses: Mapping[str, Path], *arguments: object) -> None:
        self.addresses = addresses
        super().__init__(*arguments)  # type: ignore[arg-type]

    def send_head(self) -> object:  # type: ignore[override]
        if self._address() not in self.addresses:
            self.send_error(404, "not a file of the page or the bundle")
            return None
        return super().send_head()

    def translate_path(self, path: str) -> str:
        return str(self.addresses[self._address()])

    def _address(self) -> str:
        return unquote(urlsplit(self.path).path)

    def end_headers(self) -> None:
        # Ask again each time, so that a new bundle is seen; what is unchanged is not sent again.
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: only the command line prints."""
