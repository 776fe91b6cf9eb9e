# `make` without a target lists the targets. Each target sets up what it needs, once.
.DEFAULT_GOAL := help
.PHONY: help setup repro ui test lint bench mutations lock clean
SHELL := bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= python3
EXTRAS ?=
PORT ?= 5000
REPEATS ?= 5
ONLY ?=
MARK ?= -m "not slow"
# Idle workers take over tests from busy ones (worksteal), because a few files take minutes.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal
HERE := $(CURDIR)
export PATH := $(HERE)/.venv/bin:$(PATH)
# Imports have to leave bytecode behind: without it, every import is three times slower.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/runtime ## create .venv from the lock file (with extras: EXTRAS=labels or EXTRAS="labels ray")

repro: .venv/runtime ## run the stages that changed (dvc repro) and update MLflow
	@pipeline repro

ui: .venv/runtime ## compare runs in the browser (PORT=5001 uses another port)
	@pipeline ui --port $(PORT)

test: .venv/dev ## run the tests, except those that take minutes (MARK="-m slow" runs those)
	@python -m pytest $(PARALLEL) $(MARK) $(TESTS)

lint: .venv/dev ## check style and types
	ruff check
	ruff format --check
	mypy

bench: .venv/dev ## compare the pipeline with a plain Keras script (an hour; ONLY=baseline, size, sweeps, predict, serving, verify, gate, own_data or jax runs one part)
ifeq ($(filter sweeps predict serving verify gate own_data jax,$(ONLY)),)
	@python -m benchmarks --repeats $(REPEATS) $(if $(ONLY),--only $(ONLY))
endif
ifneq ($(filter sweeps,$(or $(ONLY),sweeps)),)
	@python -m benchmarks.sweeps --repeats $(REPEATS)
endif
ifneq ($(filter predict,$(or $(ONLY),predict)),)
	@python -m benchmarks.predict --repeats $(REPEATS)
endif
ifneq ($(filter serving,$(or $(ONLY),serving)),)
	@python -m benchmarks.serving --repeats $(REPEATS)
endif
ifneq ($(filter verify,$(or $(ONLY),verify)),)
	@python -m benchmarks.verify --repeats $(REPEATS)
endif
ifneq ($(filter gate,$(or $(ONLY),gate)),)
	@python -m benchmarks.gate
endif
ifneq ($(filter own_data,$(or $(ONLY),own_data)),)
	@python -m benchmarks.own_data --repeats $(REPEATS)
endif
ifneq ($(filter jax,$(or $(ONLY),jax)),)
	@python -m benchmarks.jax --repeats $(REPEATS)
endif

mutations: .venv/dev ## insert small faults into the code and check whether the tests notice them (an hour)
	@python -m benchmarks.mutations

lock: ## resolve requirements.lock and requirements-dev.lock again (needs uv)
	uv pip compile pyproject.toml --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements-dev.lock

clean: ## remove .venv and the files that tools leave behind; keep data, models, caches and runs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build src/*.egg-info
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# An environment contains its own absolute path, so one that was moved or copied together with the repository is rebuilt.
# The link to src/ is restored if `pip install .` replaced it with a copy. EXTRAS are looked up each time.
ifneq ($(shell cat .venv/made-for 2>/dev/null),$(HERE))
.PHONY: .venv/runtime .venv/dev
else ifeq ($(wildcard .venv/lib/python3*/site-packages/__editable__.image_classifier_pipeline-*.pth),)
.PHONY: .venv/runtime .venv/dev
else ifneq ($(strip $(EXTRAS)),)
.PHONY: .venv/runtime
endif

# Prints the requirements of EXTRAS, from pyproject.toml.
define requirements_of_extras
import sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
del extras["dev"]
wanted = " ".join(sys.argv[1:]).replace(",", " ").split()
unknown = [name for name in wanted if name not in extras]
sys.exit(f"error: there is no extra {unknown[0]!r}; there are: {', '.join(extras)}") if unknown else None
print(*[line for name in wanted for line in extras[name]], sep="\n")
endef
# Prints the lines of the lock file, with hashes, for the packages that pip reports as missing.
define locked
import json, re
wanted = {item["metadata"]["name"] for item in json.load(open(".venv/extras.json"))["install"]}
wanted = {re.sub(r"[-_.]+", "-", name).lower() for name in wanted}
print(*[block for block in re.split(r"\n(?=\S)", open("requirements-dev.lock").read()) if block.partition("==")[0] in wanted], sep="\n")
endef
export requirements_of_extras locked

# pip without its warnings, which are about where it looks for packages, and without compiling all 25,000 modules, which
# takes half of the time: most are never imported, and the others are compiled when they are. If the user has switched
# bytecode off, all modules are compiled at the end, on all cores.
pip = python -m pip install --no-compile --disable-pip-version-check --no-color --progress-bar off 2> >(grep -v '^WARNING' >&2)
# Shows pip's progress through hundreds of packages as one line that is updated; in a log, as a line for every fifty.
define progress
{ n=0; while read -r word name rest; do case "$$word" in \
  Collecting|Requirement) n=$$((n+1)); \
    if [ -t 1 ]; then printf '\r\033[K  package %d: %s' $$n "$${name%%=*}"; \
    elif [ $$((n % 50)) = 0 ]; then echo "  $$n packages"; fi;; \
  Downloading) if [ -t 1 ]; then printf '\r\033[K  package %d: %s %s' $$n "$${name##*/}" "$$rest"; fi;; \
  Installing) if [ -t 1 ]; then printf '\r\033[K'; fi; echo "  $$n packages downloaded; installing them ...";; \
  esac; done; if [ -t 1 ]; then printf '\r\033[K'; fi; }
endef

.venv/runtime .venv/dev: .venv/%: requirements.lock requirements-dev.lock pyproject.toml
	@if [ "$$(cat .venv/made-for 2>/dev/null)" != "$(HERE)" ]; then \
	  echo "Setting up .venv from the lock file (a few minutes, once):"; \
	  rm -rf .venv && \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.13")' && \
	  $(PYTHON) -m venv .venv && echo "$(HERE)" > .venv/made-for; fi
ifneq ($(strip $(EXTRAS)),)
	@python -c "$$requirements_of_extras" "$(EXTRAS)" > .venv/extras.txt
endif
	@echo "  packages of requirements$(if $(filter dev,$*),-dev).lock ..."
	@$(pip) --require-hashes --no-deps -r requirements$(if $(filter dev,$*),-dev).lock | $(progress)
ifneq ($(strip $(EXTRAS)),)
	@echo "  packages of EXTRAS=$(EXTRAS) ..."
	@sed 's/ *\\$$//; /^ *--hash/d' requirements-dev.lock > .venv/constraints.txt
	@$(pip) --quiet --dry-run --report .venv/extras.json --constraint .venv/constraints.txt -r .venv/extras.txt
	@python -c "$$locked" > .venv/extras.lock
	@$(pip) --require-hashes --no-deps -r .venv/extras.lock | $(progress)
endif
	@$(pip) --quiet --no-deps --no-build-isolation --editable .
	@python -m compileall -q -j 0 src $(if $(PYTHONDONTWRITEBYTECODE),.venv/lib)
	@touch .venv/runtime $@
	@echo "  .venv is ready."
