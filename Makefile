# make demo: everything from nothing to a transformer on simulated hardware. make help lists the rest.
# Needs Python >= 3.11 with venv, make, g++, perl and git; all else is installed into .venv.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
ROOMS := spec hw compiler sim boards cli examples
TYPED := $(ROOMS:%=build/typing/gateformer/%)

.PHONY: help venv demo families minilm models bench test lint types ci clean

help:
	@echo "make demo     install, then run the digits model on the generated accelerator"
	@echo "make families compile and run a small model of every encoder family"
	@echo "make minilm   compile and run a pretrained sentence encoder (installs torch)"
	@echo "make models   every figure of docs/models.md (installs torch)"
	@echo "make bench    how busy transformers keep the array, how fast the tools are (installs torch)"
	@echo "make test     run every test"
	@echo "make lint     check style (ruff)"
	@echo "make types    check types (mypy)"
	@echo "make ci       lint, types and test"
	@echo "make venv     only install into .venv"
	@echo "make clean    remove .venv and everything built"

venv: .venv/installed

demo: .venv/installed
	$(BIN)/gateformer demo

minilm: .venv/installed-minilm
	$(BIN)/python -m gateformer.examples.minilm.demo

families: .venv/installed
	$(BIN)/python -m gateformer.examples.families.report

models: families minilm .venv/installed-train
	$(BIN)/python -m gateformer.examples.minilm.demo --tokens 32 --batch 4 --json build/minilm-batch.json
	$(BIN)/python -m gateformer.examples.minilm.demo --config small --json build/minilm-small.json
	$(BIN)/python -m gateformer.examples.families.bert_base

bench: .venv/installed-minilm
	OMP_NUM_THREADS=1 $(BIN)/python -m gateformer.examples.bench --json build/bench.json

test: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: .venv/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed-lint $(TYPED)
	$(BIN)/mypy

ci: lint types test

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-%: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

build/typing/gateformer/%:
	@mkdir -p $(@D)
	ln -s ../../../$* $@
