# `make quickstart` and `make test` are all a fresh machine needs; both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin
# The torch wheel goes first: a CPU build satisfies everything after it, so no CUDA packages are pulled in.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: install quickstart test test-fast lint bench chaos clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --constraint constraints.txt torch
	$(INSTALL) --constraint constraints.txt --editable '.[quickstart,ui,dev]'
	touch $@

quickstart: install
	$(BIN)/python jobs/quickstart_corpus.py out/quickstart-corpus.jsonl
	$(BIN)/hfray run jobs/quickstart.yaml
	$(BIN)/python jobs/quickstart_ask.py out/quickstart

# What is slow has processes, clusters and endpoints of its own, and both cores to itself.
test: test-fast
	$(BIN)/python -m pytest -m 'slow and not chaos'

test-fast: install
	$(BIN)/python -m pytest -m 'not chaos and not slow' --numprocesses 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/tokens.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/cluster.py

chaos: install
	$(BIN)/python -m pytest -m chaos

clean:
	rm -rf .venv out
