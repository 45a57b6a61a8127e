# Needs Python 3.11+ and make, nothing else: every target sets up its own virtual environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
FUZZ_STAMP := $(VENV)/.fuzz-ready
# One process a core; tests of one file stay together, because they share what is dear to set up.
PARALLEL := $(BIN)/pytest -q -m "not soak" -n auto --dist loadfile
DATA_STAMP := $(VENV)/.data-ready
ONLY ?=
FUZZ_SECONDS ?= 60

.PHONY: netns thirty anvil contracts help demo test check lint fast format unit network system soak fuzz bench bench-tahoe conformance clean setup

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make the virtual environment

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stook needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	touch $(STAMP)

$(FUZZ_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --group fuzz
	touch $(FUZZ_STAMP)

$(DATA_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --group data
	touch $(DATA_STAMP)

demo: setup ## a network on this machine: store a directory, kill farmers, read every byte back
	$(BIN)/stook demo

check: lint fast ## format, lint, types, imports, unit and property tests (a minute or two)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: setup
	$(PARALLEL) tests/unit tests/properties tests/vectors tests/conformance tests/docs

test: fast ## every test but the soak
	@$(MAKE) --no-print-directory $(FUZZ_STAMP) || echo "atheris could not be installed: the fuzzing test will be skipped"
	@test -d $(VENV)/anvil || $(MAKE) --no-print-directory anvil || echo "anvil could not be installed: tests on a chain will be skipped"
	@$(MAKE) --no-print-directory $(DATA_STAMP) || echo "pandas and others could not be installed: their tests will be skipped"
	$(PARALLEL) tests/network
	$(BIN)/pytest -q -m "not soak" tests/system

format: setup ## put the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

network: setup ## simulated networks only
	$(PARALLEL) tests/network

system: setup ## real processes and sockets only
	$(BIN)/pytest -q tests/system -m "not soak"

soak: setup ## the long tests: a hundred kills, long fuzzing
	$(BIN)/pytest -q -m soak

fuzz: setup $(FUZZ_STAMP) ## coverage-guided fuzzing, kept in .fuzz; ONLY=wire. FUZZ_SECONDS=600 choose (docs/testing.md)
	$(BIN)/python tests/fuzz/fuzz_run.py --only "$(ONLY)" --seconds $(FUZZ_SECONDS)

netns: setup ## the demo, every farmer on a host of its own 80 ms away with 1 % loss (root, or user namespaces)
	$(BIN)/python -m bench.netns

thirty: setup ## thirty processes that know one seed, which dies (bench/network.py)
	$(BIN)/python -m bench.network --farmers 30

anvil: setup ## a development node for settlement evm, by npm, into the virtual environment
	npm install --no-audit --no-fund --prefix $(VENV)/anvil @foundry-rs/anvil

contracts: setup ## compile the contracts of settlement evm into the package
	$(BIN)/python tests/support/chain_build.py

conformance: setup ## real S3 clients against a demo network; installs them first (a few minutes)
	$(BIN)/python -m conformance.run --json bench/results/conformance.json

bench: setup ## benchmarks, JSON under bench/results (see bench/README.md)
	$(BIN)/python -m bench.run

bench-tahoe: setup ## Stook beside Tahoe-LAFS from PyPI, interleaved (see bench/README.md)
	$(BIN)/python -m bench.versus.tahoe --rounds 5
	$(BIN)/python -m bench.versus.repair --rounds 3

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-conformance .venv-tahoe .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/results dist build
	find . -name __pycache__ -prune -exec rm -rf {} +
