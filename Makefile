# Two commands for a newcomer: `make demo` and `make test`. Needed beside this folder: Python 3.11 or newer, git, make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOADERS_VENV := .venv-loaders
LOADERS_BIN := $(LOADERS_VENV)/bin
TORCHAO := .venv-torchao
PIP_FLAGS := --quiet --disable-pip-version-check --no-input

.PHONY: help install web demo test soak test-loaders test-web dashboard-picture test-pt2e check format bench bench-service peers bench-peers lock clean openapi

help:
	@echo "make demo          quantize a real model through the service and show the proof (KEEP=1 leaves it up)"
	@echo "make test          the whole test suite"
	@echo "make soak          jobs under a hail of faults for ten minutes (SEED=n for another hail)"
	@echo "make test-loaders  load artifacts through GPTQModel and transformers, in an environment of its own"
	@echo "make test-pt2e     quantize activations through torchao, which the other tests run without"
	@echo "make test-web      the dashboard: types, logic, and the whole of it in Chromium"
	@echo "make check         lint, formatting, types, import rules"
	@echo "make bench         wall time, memory and perplexity against the stated thresholds"
	@echo "make bench-service rates and latencies of the service against the stated thresholds"
	@echo "make bench-peers   time, memory and perplexity beside GPTQModel, llm-compressor and auto-round (hours)"
	@echo "make openapi       renew docs/openapi.json after a change of the API"
	@echo "make install       the set-up step alone"
	@echo "make web           build the dashboard alone, after a change in web/"
	@echo "make lock          renew constraints.txt"
	@echo "make clean         remove environments, caches and var/"

install: $(VENV)/.installed web

# The stamp is written last: a set-up that was broken off is done again, one that is up to date is not.
$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Bitmill needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into $(VENV) (the first time this takes some minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python web/dashboard.py
	@$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[api,engine,dev]'
	@$(BIN)/python -m core.warm_up
	@touch $@

# Does nothing where the page's sources have not changed.
web: $(VENV)/.installed
	@$(BIN)/python web/dashboard.py

demo: install
	@$(BIN)/bitmill demo $(if $(filter-out 0,$(KEEP)),--keep)

# Many tests wait for leases and processes, so that two cores have work for three; each of these gets by with one thread.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal -m 'not loaders and not browser and not soak'

$(LOADERS_VENV)/.installed: tests/loaders/requirements.txt
	@echo "Installing GPTQModel, optimum and transformers into $(LOADERS_VENV) ..."
	@test -x $(LOADERS_BIN)/python || $(PYTHON) -m venv $(LOADERS_VENV)
	@$(LOADERS_BIN)/python -m pip install $(PIP_FLAGS) --requirement tests/loaders/requirements.txt
	@touch $@

soak: install
	@$(BIN)/python -m pytest -m soak -s tests/fault

test-loaders: install $(LOADERS_VENV)/.installed
	@$(LOADERS_BIN)/python -m pytest -c tests/loaders/pytest.ini tests/loaders

# A folder and no environment: torchao needs nothing that the engine does not bring.
$(TORCHAO)/.installed: constraints.txt
	@$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --no-deps --upgrade --target $(TORCHAO) torchao
	@touch $@

test-pt2e: install $(TORCHAO)/.installed
	@PYTHONPATH=$(TORCHAO) $(BIN)/python -m pytest -c tests/pt2e/pytest.ini --rootdir . tests/pt2e

$(VENV)/.browser: $(VENV)/.installed
	@command -v chromium >/dev/null || { echo "make test-web needs Chromium; on Debian: apt-get install chromium" >&2; exit 1; }
	@$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[browser]'
	@touch $@

test-web: install $(VENV)/.browser
	@$(BIN)/python web/check.py
	@$(BIN)/python -m pytest -m browser tests/browser

# Renews the picture in README.md.
dashboard-picture: install $(VENV)/.browser
	@BITMILL_PICTURE=docs/images/dashboard.png $(BIN)/python -m pytest -m browser tests/browser/test_picture.py

check: install
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

openapi: install
	@$(BIN)/python -m api.document docs/openapi.json

bench: install
	@$(BIN)/python benchmarks/run.py

bench-service: install
	@PYTHONPATH=. $(BIN)/python benchmarks/service.py

# Each peer pins a torch of its own, so each has an environment of its own.
PEERS := gptqmodel llmcompressor autoround

.venv-peers/%/.installed: benchmarks/peer_drivers/%.txt
	@echo "Installing $* into .venv-peers/$* ..."
	@test -x .venv-peers/$*/bin/python || $(PYTHON) -m venv .venv-peers/$*
	@.venv-peers/$*/bin/python -m pip install $(PIP_FLAGS) --requirement $<
	@touch $@

peers: $(PEERS:%=.venv-peers/%/.installed)

bench-peers: install peers
	@$(BIN)/python benchmarks/peers.py
	@$(BIN)/python benchmarks/accuracy.py --second-model --peers $(PEERS)

# Resolves anew what pyproject.toml asks for, in an environment of its own, and writes the one set of versions.
lock:
	@rm -rf var/lock && $(PYTHON) -m venv var/lock
	@var/lock/bin/python -m pip install $(PIP_FLAGS) --dry-run --ignore-installed --report var/lock.json '.[api,browser,engine,examples,pt2e,dev]'
	@$(PYTHON) -c 'import json; rows = sorted((i["metadata"]["name"].lower().replace("_", "-"), i["metadata"]["version"].split("+")[0]) for i in json.load(open("var/lock.json"))["install"]); \
	  print(open("constraints.txt").readline(), *(f"{n}=={v}\n" for n, v in rows if n != "bitmill"), sep="", end="")' > var/constraints.txt
	@mv var/constraints.txt constraints.txt

clean:
	@rm -rf $(VENV) $(LOADERS_VENV) $(TORCHAO) .venv-peers var build dist *.egg-info api/static web/node_modules
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
