# make help lists the targets.
STACK ?= tf221
PYTHON ?= python3.11
ARGS ?=

ENV := .venv/$(STACK)
BIN := $(ENV)/bin
# Touched last: an environment without it is half made and is made anew.
READY := $(ENV)/.ready

# Warnings and errors of TensorFlow's runtime, but not its chatter.
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo test bench lint clean

help: ## this list
	@echo "make TARGET [STACK=tf221|tf215] [PYTHON=python3.11] [ARGS=...]"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 10

env: $(READY) ## the locked environment .venv/STACK

demo: $(READY) ## train on real rows and write tables and plots to runs/ (ARGS="--data kuairand --path ...")
	$(BIN)/tfmtl demo $(ARGS)

test: $(READY) ## the tests, on every core up to four (ARGS="-k data")
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

bench: $(READY) ## time and memory against what else there is, into benchmarks/ (a quarter of an hour)
	$(BIN)/python benchmarks/pairwise.py --out benchmarks/pairwise-$(STACK).md
	$(BIN)/python benchmarks/stream.py --out benchmarks/stream-$(STACK).md

lint: $(READY) ## linter, formatter, type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove environments, builds and caches, but not runs/
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/$(STACK).txt setup.py
	@test -e $@ || $(PYTHON) -m venv --clear $(ENV)
	@rm -f $@
	$(BIN)/python -m pip install -r requirements/$(STACK).txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

requirements/%.txt:
	@echo "STACK must be one of: $(basename $(notdir $(wildcard requirements/*.txt))). Received: $*" >&2; exit 1
