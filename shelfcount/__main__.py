"""Entry point of ``python -m shelfcount``."""

from shelfcount.cli.app import main

main()
