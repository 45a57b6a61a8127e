# Needs Python 3.11+ and make, nothing else: every target sets up its own virtual environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help demo test check format unit network system soak fuzz bench bench-tahoe conformance clean setup

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make the virtual environment

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stook needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	touch $(STAMP)

demo: setup ## a network on this machine: store a directory, kill farmers, read every byte back
	$(BIN)/stook demo

check: setup ## format, lint, types, imports, unit and property tests (a minute or two)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit tests/properties tests/vectors tests/conformance tests/docs

test: setup ## every test but the soak
	$(BIN)/pytest -q -m "not soak"

format: setup ## put the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

network: setup ## simulated networks only
	$(BIN)/pytest -q tests/network

system: setup ## real processes and sockets only
	$(BIN)/pytest -q tests/system -m "not soak"

soak: setup ## the long tests: a hundred kills, long fuzzing
	$(BIN)/pytest -q -m soak

bench: setup ## benchmarks, JSON under bench/results (see bench/README.md)
	$(BIN)/python -m bench.run

clean: ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/results dist build
	find . -name __pycache__ -prune -exec rm -rf {} +
