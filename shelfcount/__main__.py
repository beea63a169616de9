"""Entry point of ``python -m shelfcount``."""

from shelfcount.cli.entry import run

run()
