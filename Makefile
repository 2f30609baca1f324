# The commands of this project; `make help` lists them.
#
# Settings: PYTHON (which Python 3.11 or 3.12 to use), VENV (where to install), TORCH (cpu or gpu), ARGS (more arguments for pytest),
# TEST_PROCESSES (files of tests that run at the same time; many tests start two or four ranks themselves).

SHELL := /bin/bash
VENV ?= .venv
TORCH ?= cpu
PYTHON ?=
ARGS ?=
TEST_PROCESSES ?= 2
export VENV TORCH PYTHON

BIN := $(VENV)/bin
TRANSFORMERS5 := $(abspath $(VENV))/transformers5
SHELL_FILES = $(shell git ls-files '*.sh' .ci/run)

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-transformers5 lint types format lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-23s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  settings: PYTHON=python3.12 VENV=.venv TORCH=cpu|gpu ARGS='-k name' (for test)"

install: ## install the locked set and `sibol` into .venv
	@requirements/install.sh

install-dev:
	@requirements/install.sh dev

demo: install ## from text to an evaluated model, on this machine
	@$(BIN)/sibol demo

test: install-dev ## run all tests
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

test-transformers5: install-dev $(TRANSFORMERS5)/.installed ## test that transformers 5 reads our exports
	@TRANSFORMERS5=$(TRANSFORMERS5) $(BIN)/python -m pytest tests/parity/peers_transformers5.py $(ARGS)

$(TRANSFORMERS5)/.installed: requirements/transformers5.txt | install-dev
	@rm -rf $(@D)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(@D) -r $<
	@touch $@

lint: install-dev ## check style: Python and shell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/shellcheck $(SHELL_FILES)

types: install-dev ## check types
	@$(BIN)/mypy

format: install-dev ## put the code into the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## resolve requirements.in and dev.in anew and write the locks
	@requirements/lock.sh

clean: ## remove the environment and all caches (keeps runs and data)
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
