# Two commands need nothing but Python and this file: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test quick slow consumers lint docs lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Its name contains the hash of what is to be installed, so that only a changed lock is installed
# again.
INSTALLED := $(VENV)/installed-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
# Two processes, as many as the smallest machine has cores; a file stays in one, with what its tests share.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile

help:  ## Show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | while IFS='|' read -r name what; do printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: $(INSTALLED)  ## Make the virtual environment in .venv

demo: setup  ## Train, quantize, measure and count on synthetic shelves, up to an HTML report
	@$(BIN)/python benchmarks/demo.py

test: quick slow  ## Everything: lint, types, quick and slow tests

quick: lint  ## Lint, spelling, types and the quick tests
	@$(PYTEST) -m "not slow"

slow: setup consumers
	@$(PYTEST) -m slow

consumers: setup  ## Make the environments of the runtimes that must load a bundle
	@.ci/consumers tflite_runtime mediapipe web arm tensorflow gpu_analyzer

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/mypy

docs: setup  ## Build the documentation into site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

# Versions that are locked already are kept; `make lock UPGRADE=--upgrade` moves to the newest ones.
lock: setup  ## Pin the versions and hashes of all requirements
	@$(BIN)/uv pip compile pyproject.toml --extra train --extra export --extra ray --extra docs --extra dev \
		--generate-hashes --no-header --no-annotate --quiet $(UPGRADE) --output-file requirements.lock

clean:  ## Remove the virtual environment, caches and the demo's folder
	rm -rf $(VENV) .consumers build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo
	find shelfcount tests benchmarks export .ci -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED):
	@.ci/debian $(PYTHON)
	@echo "setup 1 of 3: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup 2 of 3: $$(grep -c == requirements.lock) pinned packages, 6.8 GB after installation; this is done once and takes a few minutes"
	@$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements.lock
	@echo "setup 3 of 3: shelfcount itself"
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/installed-*
	@touch $@
