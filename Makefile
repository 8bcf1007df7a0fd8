# Every target makes what it needs: a virtual environment in .venv, one stamp file per group of packages.
# Uses uv when it is there, else venv and pip.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
ARGS ?=
# Tests mostly wait, for servers and for each other: more processes than cores.
JOBS ?= 4
# Of `make versions`: the lowest that pyproject.toml allows, or `highest`.
RESOLUTION ?= lowest-direct

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help:  ## show this list
	@echo "nbqueue: make TARGET"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 12

.PHONY: demo
demo: $(STAMPS)/notebook  ## run the quickstart notebook here and show its results
	@$(BIN)/python notebooks/run.py notebooks/01-quickstart.ipynb

.PHONY: lab
lab: $(STAMPS)/lab  ## open the quickstart notebook in JupyterLab
	@$(BIN)/jupyter lab notebooks/01-quickstart.ipynb $(ARGS)

.PHONY: test
test: $(STAMPS)/test services  ## run every test in its short form (ARGS="-k name" for some)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

.PHONY: soak
soak: $(STAMPS)/test services  ## run the long tests: crashes, idling, memory
	@$(BIN)/python -m pytest -m soak --timeout=3600 $(ARGS)

.PHONY: bench
bench: $(STAMPS)/bench  ## measure nbqueue beside its peers (ARGS="--broker redis" for those on Redis)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: versions
versions: services  ## test with other versions: RESOLUTION=lowest-direct (or highest) PYTHON=python3.10
	@PYTHON="$(PYTHON)" JOBS="$(JOBS)" tools/versions $(RESOLUTION) $(ARGS)

.PHONY: lint
lint: $(STAMPS)/lint  ## check format, style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: format
format: $(STAMPS)/lint  ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(STAMPS)/docs  ## build the documentation into build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

.PHONY: docs-links
docs-links: $(STAMPS)/docs  ## look whether links to other sites still work (needs a network)
	@$(BIN)/python -m sphinx -q -b linkcheck docs build/docs-links

.PHONY: services
services:  ## install the servers that the tests start, or say how
	@tools/services

.PHONY: clean
clean:  ## remove the environment and the caches
	@rm -rf $(VENV) .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# A stamp is fresh while pyproject.toml is older than it and the environment still runs from this folder.
$(STAMPS)/%: pyproject.toml tools/environment $(STAMPS)/made
	@tools/environment install $*
	@touch $@

# Checked at every call, so that a moved or half-made environment is made again.
ifneq ($(shell tools/environment check 2>/dev/null),ok)
.PHONY: $(STAMPS)/made
endif
$(STAMPS)/made:
	@PYTHON="$(PYTHON)" tools/environment make
	@touch $@
