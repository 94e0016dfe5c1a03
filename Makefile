# `make demo` and `make test` need Python (3.11 or newer) and make; everything else goes into .venv.
#
#   make test PYTHON=python3.12     build .venv with this interpreter
#   make test PYTEST='-k prior'     more arguments for pytest
#   make bench BENCH=sweeps         arguments of `python -m benchmarks`
#
# Without make: python -m venv .venv, then .venv/bin/pip install -e '.[test]', then the command of the target.

VENV ?= .venv
PYTHON ?=
PYTEST ?=
BENCH ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two targets would install into one .venv at once
.PHONY: help demo test lint format notebooks bench accuracy docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## fit the digits by maximum likelihood and maximum a posteriori; figures go to report/
	$(BIN)/python -m probsoftmax compare --data digits --output report

# One process a core; the tests of one file stay together, for they share compiled programs, and the files in their
# order: those that are optimised as for users come first.
workers := -n logical --dist loadfile --no-loadscope-reorder

# The tests run even where lint fails: one run tells everything.
test: $(VENV)/.test ## lint, types and tests
	@$(lint); \
	$(BIN)/python -m pytest $(workers) $(PYTEST) || exit 1; \
	if [ "$$lint" ]; then echo 'The tests passed; lint failed, see above.' >&2; exit 1; fi

lint: $(VENV)/.test ## ruff (lint and format) and pyrefly (types)
	@$(lint); test -z "$$lint"

# pyrefly would look for packages in an environment that is active, before it looks into .venv.
lint := lint=; for check in 'ruff check .' 'ruff format --check .' \
	  'pyrefly check --python-interpreter-path $(BIN)/python'; do \
	  echo "$(BIN)/$$check"; $(BIN)/$$check || lint=failed; done

format: $(VENV)/.test ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(VENV)/.notebooks ## run each notebooks/NN_*.py into the .ipynb beside it
	$(BIN)/python notebooks/execute.py

bench: $(VENV)/.bench ## measure the fits beside other packages; BENCH='--write' keeps it, BENCH=sweeps runs a part
	$(BIN)/python -m benchmarks $(BENCH)

accuracy: $(VENV)/.bench ## compare the numerics with multiple precision
	$(BIN)/python -m benchmarks.accuracy

docs: $(VENV)/.docs ## build the documentation into docs/_build
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean: ## remove .venv and everything made from the sources
	rm -rf $(VENV) report docs/_build docs/notebooks build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment --------------------------------------------------------------------------------------------

# What a target needs and no more. A stamp inside .venv says that it is there; a new pyproject.toml renews it.
extras-demo := plots,progress,sklearn
extras-test := test
extras-notebooks := notebooks
extras-bench := bench
extras-docs := docs

# uv is much faster; where it cannot be had, or fails, pip does the same.
pip := $(BIN)/python -m pip install --quiet --disable-pip-version-check
uv := $(BIN)/uv pip install --quiet --python $(BIN)/python

$(VENV)/.%: pyproject.toml $(BIN)/python
	@echo 'Installing probsoftmax[$(extras-$*)] into $(VENV); the first time takes a while'
	@{ test -x $(BIN)/uv || $(pip) uv; } && $(uv) -e '.[$(extras-$*)]' \
	  || { echo 'uv did not do it; trying pip'; $(pip) -e '.[$(extras-$*)]'; }
	@touch $@

# An interpreter is tried by running it: a version manager may leave a name on PATH that only prints an error.
usable := 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
names := python3.13 python3.12 python3.14 python3.11 python3 python

$(BIN)/python:
	@for name in $(if $(PYTHON),"$(PYTHON)",$(names)); do \
	  $$name -c $(usable) 2>/dev/null || continue; \
	  echo "Creating $(VENV) with $$name"; \
	  exec $$name -m venv --clear $(VENV); \
	done; \
	echo 'Tried without success: $(or $(PYTHON),$(names))' >&2; \
	echo 'Needed: Python 3.11 or newer with its venv module (Debian, Ubuntu: apt install python3-venv).' >&2; \
	echo 'Name another with: make $(MAKECMDGOALS) PYTHON=/path/to/python' >&2; \
	exit 1

# An interpreter that is named, and is of another version than the one in .venv, makes .venv anew.
ifneq ($(PYTHON),)
version := -c 'import sys; print(sys.version)' 2>/dev/null
ifneq ($(shell $(PYTHON) $(version)),$(shell $(BIN)/python $(version)))
.PHONY: $(BIN)/python
endif
endif
