# `make` alone lists the targets. Each one sets up what it needs, once.
.DEFAULT_GOAL := help
.PHONY: help setup repro ui test lint bench lock clean

PYTHON ?= python3
REPEATS ?= 5
ONLY ?=
MARK ?= -m "not slow"
# A worker that has nothing left takes over from the other: a few files take minutes.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal
HERE := $(CURDIR)
export PATH := $(HERE)/.venv/bin:$(PATH)
# Installers and test runs must leave bytecode behind: without it every import is three times slower.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: .venv/runtime ## create .venv from requirements.lock (done by the other targets when missing)

repro: .venv/runtime ## rebuild the pipeline: dvc repro, then bring MLflow up to date
	@dvc repro
	@pipeline sync

ui: .venv/runtime ## compare runs in the browser: mlflow ui on 127.0.0.1:5000, two processes instead of fifteen
	@pipeline sync
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_WORKERS=1 MLFLOW_DISABLE_TELEMETRY=true \
	MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false mlflow ui --host 127.0.0.1 --port 5000

test: .venv/dev ## run the tests, but for those that take minutes (MARK="-m slow" runs those)
	@python -m pytest $(PARALLEL) $(MARK) $(TESTS)

lint: .venv/dev ## check style and types
	ruff check
	ruff format --check
	mypy

bench: .venv/dev ## measure the pipeline against the plain script (an hour; ONLY=baseline, size or sweeps: a part of it)
ifneq ($(ONLY),sweeps)
	@python -m benchmarks --repeats $(REPEATS) $(if $(ONLY),--only $(ONLY))
endif
ifneq ($(filter sweeps,$(or $(ONLY),sweeps)),)
	@python -m benchmarks.sweeps --repeats $(REPEATS)
endif

lock: ## resolve requirements.lock and requirements-dev.lock anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements-dev.lock

clean: ## remove .venv and what tools leave behind; data, models, caches and runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build src/*.egg-info
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# An environment knows its own absolute path: one that was moved or copied here with the repo is built anew.
ifneq ($(shell cat .venv/made-for 2>/dev/null),$(HERE))
.PHONY: .venv/runtime .venv/dev
endif
.venv/runtime .venv/dev: .venv/%: requirements.lock requirements-dev.lock pyproject.toml
	@if [ "$$(cat .venv/made-for 2>/dev/null)" != "$(HERE)" ]; then \
	  echo "Setting up .venv from the lock file (a few minutes, once) ..."; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.13")' && \
	  rm -rf .venv && $(PYTHON) -m venv .venv && echo "$(HERE)" > .venv/made-for; fi
	@python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements$(if $(filter dev,$*),-dev).lock
	@python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@python -m compileall -q src
	@touch .venv/runtime $@
