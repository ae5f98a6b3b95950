# make help lists the targets.
STACK ?= tf221
PYTHON ?= python3.11
ARGS ?=

ENV := .venv/$(STACK)
BIN := $(ENV)/bin
# Touched last: an environment without it is half made and is made anew.
READY := $(ENV)/.ready
EVERY := $(patsubst %,.venv/%/.ready,tf221 tf215 peers)

# Warnings and errors of TensorFlow's runtime, but not its chatter.
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo test bench bench-quick soak docs release lint clean

help: ## this list
	@echo "make TARGET [STACK=tf221|tf215] [PYTHON=python3.11] [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

env: $(READY) ## the locked environment .venv/STACK

demo: $(READY) ## train on real rows and write tables and plots to runs/ (ARGS="--data kuairand --path ...")
	$(BIN)/tfmtl demo $(ARGS)

test: $(READY) ## the tests, on every core up to four (ARGS="-k data")
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

bench: $(EVERY) ## time and memory on both stacks and beside peers, into docs/benchmarks/ (long; ARGS="--only embedding")
	.venv/tf221/bin/python -m benchmarks $(ARGS)

bench-quick: $(EVERY) ## the same with less of everything, to the terminal (minutes)
	.venv/tf221/bin/python -m benchmarks --quick $(ARGS)

soak: $(READY) ## train, kill at random moments, start again, compare with an unbroken run (ARGS="--kills 100")
	$(BIN)/python -m tests.soak $(ARGS)

docs: $(READY) ## the site, into build/docs
	$(BIN)/python -m sphinx -E -W --keep-going -q docs build/docs
	@echo "Open build/docs/index.html"

release: $(READY) ## sdist and wheel into dist/, each installed and used in a fresh environment of each stack
	$(BIN)/python -m tests.release $(ARGS)

lint: $(READY) ## linter, formatter, type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove environments, builds and caches, but not runs/
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/%/.ready: requirements/%.txt setup.py
	@test -e $@ || $(PYTHON) -m venv --clear $(@D)
	@rm -f $@
	$(@D)/bin/python -m pip install -r $<
	@test $* = peers || $(@D)/bin/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

requirements/%.txt:
	@echo "STACK must be one of: $(basename $(notdir $(wildcard requirements/tf*.txt))). Received: $*" >&2; exit 1
