# The commands of a newcomer and of a developer. Everything runs in .venv/, made from requirements.lock on first use.
BIN := .venv/bin
PYTHON ?= $(firstword $(wildcard $(BIN)/python) python3)
STAMP := .venv/.installed
SENDERS := .venv/.senders
TRACE ?=
KEEP ?=
MINUTES ?= 10
SEED ?=
CLUSTER ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Tests on a real line wait more than they compute: four at once keep two cores at work, JOBS=8 four.
JOBS ?= 4
SUITE := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20
FAST := not stack and not docker and not node
RESOLVE := build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
# A pip.conf with `user = true` would stop every install.
export PIP_USER := 0
# Where it is set, each of a stack's processes compiles the package again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test check lint unit laws contracts e2e acceptance nightly coverage chaos bench dist install lock clean tools

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## from nothing to priced calls, budgets and alerts in two minutes; KEEP=1 leaves it running; TRACE=FILE plays a real trace
	$(BIN)/tollmeter demo $(if $(TRACE),--trace "$(TRACE)") $(if $(KEEP),--keep)

test: $(SENDERS) ## the whole suite: unit tables, laws, contracts on the real broker and engine, end to end
	$(SUITE)

check: $(STAMP) ## lint, format, types, import rules, fast tests: what to run before a commit
	@$(MAKE) --no-print-directory -j 2 lint unit

lint: $(STAMP) ## lint, format, types and import rules alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/lint-imports

unit: $(STAMP) ## tables with values worked out by hand
	$(SUITE) -n 2 -q tests/unit -m "$(FAST)"

laws: $(STAMP) ## laws beside oracles, and the simulator
	$(SUITE) -n 2 tests/laws tests/simulation

contracts: $(SENDERS) ## every border, on the real broker, engine and SDKs
	$(SUITE) tests/contracts

e2e: $(STAMP) ## events in, sums out, workers killed in the middle
	$(SUITE) tests/e2e

acceptance: $(SENDERS) ## every row of docs/features.md on one stack: which work, which in part
	$(BIN)/python -m tests.acceptance

nightly: $(SENDERS) ## the long forms: all that `make test` samples or leaves out
	$(SUITE) -m nightly

coverage: $(SENDERS) ## the whole suite once more, slower, and which lines of the package it runs
	rm -rf build/coverage
	code=0; $(subst python -m,coverage run -m,$(SUITE)) || code=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$code

chaos: $(STAMP) ## attack a line of its own with real faults for MINUTES=10 (root adds more; CLUSTER=3: on three brokers) and print what it survived
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(CLUSTER),--brokers $(CLUSTER))

bench: $(STAMP) ## the figures of docs/performance.md; takes a while and wants a quiet machine
	$(BIN)/python -m benchmarks.pipeline

dist: $(STAMP) ## build the wheel and the sdist into dist/, with the tools of the lock
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .

install: $(STAMP) ## make .venv/ from requirements.lock; the others do so by themselves

lock: | tools ## resolve pyproject.toml again into the lock files (CPython 3.11 to 3.13, Linux and macOS)
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet 'uv==0.13.9'
	$(RESOLVE) --extra dev --extra senders pyproject.toml --output-file requirements-senders.lock
	$(RESOLVE) --extra dev --constraint requirements-senders.lock pyproject.toml --output-file requirements.lock
	for name in focus s3; do \
		$(RESOLVE) tests/environments/$$name.in --output-file tests/environments/$$name.lock || exit; done
	echo 'setuptools>=77' | $(RESOLVE) --extra worker --extra notify --extra server --constraint requirements.lock pyproject.toml - \
		--output-file requirements-worker.lock

clean: ## remove the environment, caches and builds; data in .tollmeter/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the lock says is installed, file by file: nothing is resolved, so a release of tomorrow changes nothing.
$(STAMP): requirements.lock pyproject.toml | tools
	@echo "Preparing .venv/ (once; a minute or two)"
	@cmp -s requirements.lock .venv/requirements.lock || $(PYTHON) -m venv --clear .venv
	@$(PIP) install --quiet --require-hashes --no-deps --only-binary :all: -r requirements.lock
	@$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@found=$$($(PIP) check 2>&1) || { echo "$$found" >&2; \
		echo "requirements.lock does not hold what pyproject.toml needs (above): mend it with 'make lock'" >&2; exit 2; }
	@cp requirements.lock .venv/requirements.lock
	@touch $@

# Libraries of others that tests let send to us; a newcomer's first minutes do not wait for them.
$(SENDERS): requirements-senders.lock $(STAMP)
	@$(PIP) install --quiet --require-hashes --no-deps --only-binary :all: -r requirements-senders.lock
	@touch $@

# Asked on every call, before anything is made: the broker is Java's, and Maven fetches it.
ON_BROKER := demo test laws contracts e2e acceptance nightly coverage chaos bench
tools:
	@PYTHON="$(PYTHON)" sh .ci/tools.sh $(if $(filter $(ON_BROKER),$(MAKECMDGOALS)),java maven)
