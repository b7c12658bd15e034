# Each command sets up what it needs; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export NO_ALBUMENTATIONS_UPDATE := 1
# waiting threads must not spin: on a busy machine, that makes training 3 times slower
export OMP_WAIT_POLICY ?= PASSIVE
# each stage is a separate process: without cached bytecode, its imports take 10 seconds
export PYTHONDONTWRITEBYTECODE :=
export TQDM_MININTERVAL ?= 1
READY := $(VENV)/.ready
EXTRAS := $(VENV)/.ready-extras
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url

.PHONY: help setup setup-extras repro kfold ablation test test-fast faults bench bench-gpu check format ui champion demo lock clean
help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(READY) ## install everything into .venv (other commands do so on first use)

$(READY): requirements.lock pyproject.toml
	@command -v uv >/dev/null || [ -x $(VENV)/bin/uv ] || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.x" >&2; exit 1; }; \
	  $(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	@[ -x $(VENV)/bin/python ] || uv venv --quiet --python '>=3.11' $(VENV)
	uv pip install --quiet --require-hashes --requirement requirements.lock
	uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup-extras: $(EXTRAS) ## also install the optional extras: demo, Ray, and what their tests need

$(EXTRAS): requirements-extras.lock $(READY)
	uv pip install --quiet --require-hashes --requirement requirements-extras.lock
	@touch $@

repro: setup ## run the whole pipeline, from the data to submission.csv
	@dvc repro
	@python -m steelseg summary

kfold: setup ## train one model per fold, predict with their mean (ARGS='-S epochs=8')
	@python -m steelseg kfold $(ARGS)

ablation: setup ## try switches one at a time with several seeds, write a table to docs/results.md
	@python -m steelseg ablation docs/ablation.yaml --page docs/results.md $(ARGS)

test: setup ## run all tests, in three processes
	python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-fast: setup ## run the tests that take seconds
	python -m pytest -m 'not pipeline'

faults: setup ## kill, damage and starve a tiny pipeline, and print a table of outcomes (ARGS='--seed 1')
	PYTHONPATH=src:tests python -m faults $(ARGS)

bench: setup ## measure speed against the starter notebook (ARGS='--only loading')
	PYTHONPATH=src python -m benchmarks $(ARGS)

bench-gpu: setup ## measure speed on a GPU; needs one (ARGS='--tiny' for a smoke test on a CPU)
	PYTHONPATH=src python -m benchmarks --gpu --out benchmarks/results-gpu.json $(ARGS)

check: setup ## run lint, format and type checks
	ruff check .
	ruff format --check .
	mypy

format: setup ## format the code
	ruff check --fix .
	ruff format .

ui: setup ## show the experiments in a browser, at 127.0.0.1:5000
	@python -m steelseg ui

champion: setup ## make the best registered model the champion (ARGS='--run ...' to choose another)
	@python -m steelseg champion $(ARGS)

demo: setup-extras ## try the model on your own images, at 127.0.0.1:8501
	@python -m steelseg demo

lock: setup ## update the lock files from pyproject.toml
	$(COMPILE) --upgrade --extra dev pyproject.toml --output-file requirements.lock
	$(COMPILE) --upgrade --constraint requirements.lock --extra dev --extra demo --extra ray --extra dev-extras pyproject.toml --output-file requirements-extras.lock

clean: ## delete unfinished work of interrupted stages
	rm -rf .checkpoints
