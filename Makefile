# The commands of a newcomer and of a developer. Everything runs in .venv/, made from requirements.lock on first use.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TRACE ?=
MINUTES ?= 10
SEED ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check chaos bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## from nothing to priced calls, budgets and alerts in two minutes; TRACE=FILE plays a real trace
	$(BIN)/tollmeter demo $(if $(TRACE),--trace "$(TRACE)")

test: $(STAMP) ## the whole suite: unit tables, laws, contracts on the real broker and engine, end to end
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations 20

check: $(STAMP) ## lint, format, types, import rules, fast tests: what to run before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit -m "not stack and not docker and not node"

chaos: $(STAMP) ## attack a line of its own with real faults for MINUTES=10 (root adds more) and print what it survived
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(STAMP) ## the figures of docs/performance.md; takes a while and wants a quiet machine
	$(BIN)/python -m benchmarks.pipeline

lock: $(STAMP) ## resolve pyproject.toml again into the lock files (CPython 3.11 to 3.13, Linux and macOS)
	$(PIP) install --quiet 'uv==0.13.9'
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --extra dev pyproject.toml --output-file requirements.lock
	echo 'setuptools>=77' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --extra worker --extra notify --constraint requirements.lock pyproject.toml - \
		--output-file requirements-worker.lock

clean: ## remove the environment, caches and builds; data in .tollmeter/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "tollmeter needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)." >&2; \
		echo "Install one, or name it: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "Preparing .venv/ (once; a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --quiet --require-hashes --no-deps --only-binary :all: -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
