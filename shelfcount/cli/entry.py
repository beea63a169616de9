"""Entry point of the command ``shelfcount`` and of ``python -m shelfcount``."""

from __future__ import annotations

import sys

from shelfcount.machine import explain_opencv_error


def run() -> None:
    """Run the command line.

    If OpenCV cannot be imported, the reason is printed without a traceback and the exit status
    is 2. All of the command line is therefore imported here and not at the top.
    """
    try:
        from shelfcount.cli.app import main

        main()
    except ImportError as error:
        message = explain_opencv_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
