# A fresh machine needs `make demo` or `make test`; both make their own virtual environment and build.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.built
SOURCES = setup.py pyproject.toml $(wildcard cython_ext/*.p* cython_ext/core/* spectral_alloc/*.pxd)

.PHONY: build demo test test-long test-all lint sanitize bench clean

build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet "setuptools>=77" "cython>=3.3"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,lint]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python demos/inverted_index.py

test: $(STAMP)
	$(BIN)/python -m pytest -q

# The qualification that takes long: more Hypothesis examples, soaks, the full memory-cap run.
test-long: $(STAMP)
	$(BIN)/python -m pytest -q --long

# The tests under every CPython that is installed (3.11, 3.12, 3.13).
test-all:
	./tests/all_pythons.sh

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

# The C code's tests under the address and undefined-behaviour sanitizers, in a build of their own.
sanitize: $(STAMP)
	./tests/sanitize.sh $(BIN)/python

# What a hot entry costs, and a race at a tenth of its size; docs/benchmarks.md names the commands of the full runs.
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[bench]"
	$(BIN)/python benchmarks/hot.py
	$(BIN)/python benchmarks/race.py --scale 0.1
	$(BIN)/python benchmarks/space.py --repeats 5 --edits 500000

clean:
	rm -rf build dist .venv *.egg-info spectral_alloc/*.so
