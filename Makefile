# Everything a developer and CI do. Each target sets up what it needs; `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types imports format bench lock clean

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(READY)  ## Make the virtual environment from the lock file

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)  ## Show the main job end to end on a real control plane (KEEP=1 leaves it running)
	$(BIN)/python -m kmseal_dev.demo $(if $(KEEP),--keep)

test: $(READY)  ## Run all tests but those that need a cluster of containers
	$(BIN)/pytest

check: lint types imports test  ## Lint, types, import contracts and tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## Run the load programs (BENCH_ARGS are passed on)
	$(BIN)/python bench/reconcile.py $(BENCH_ARGS)
	$(BIN)/python bench/rotation.py
	$(BIN)/python bench/admission.py
	$(BIN)/python bench/grants.py
	$(BIN)/python bench/agent.py

lock: $(READY)  ## Renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra operator --extra webhook --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --upgrade -o requirements.lock

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
