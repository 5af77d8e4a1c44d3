# The one door. `make` lists what a person can do here; everything else is a line or a script.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS := tests/unit tests/contract tests/property tests/faults tests/e2e tests/lab

BUYERS ?= 1000000
TICKETS ?= 10000
PORT ?= 3005
NODES ?=
WEIGHTS ?=
KILL ?=
MANY := $(if $(NODES),--nodes $(NODES)) $(if $(WEIGHTS),--weights $(WEIGHTS))
PYTHON ?=

# What runs in the lab. Who is not root has no lab, and the tests say so.
EDGE := ip sysctl nft nginx curl keepalived zebra ospfd vtysh
LAB := [ "$$(id -u)" -ne 0 ] || scripts/need $(EDGE)

# On a person's machine the tests say at their end what they left out; CI has everything.
KAFKA := scripts/kafka >/dev/null || [ "$$CI" != true ]

# Most tests wait more than they work, so files are run side by side, WORKERS of them at a time; 0: one after the other.
WORKERS ?= 2
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup rush demo up lab test test-all faults check format bench docs pins clean

help:  ## List these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## Make the virtual environment in .venv with everything in it.

$(READY): pyproject.toml constraints.txt
	@scripts/need python
	"$$(PYTHON='$(PYTHON)' scripts/interpreter)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

rush: $(READY)  ## Sell 10,000 tickets to 1,000,000 buyers, audit it, write out/rush.json and out/rush.html. NODES=4 KILL=2: a cluster.
	@mkdir -p out
	$(BIN)/ticketrush rush --buyers $(BUYERS) --tickets $(TICKETS) --json out/rush.json --report out/rush.html \
	  $(MANY) $(if $(KILL),--kill $(KILL))

demo: $(READY)  ## Serve the demo sale: 10,000 tickets at http://127.0.0.1:3005/buy/ticket.
	$(BIN)/ticketrush serve --demo $(TICKETS) --port $(PORT)

up: $(READY)  ## Run a cluster with the demo sale: a Valkey and nodes from http://127.0.0.1:3005 on. NODES=4: so many.
	$(BIN)/ticketrush up --demo $(TICKETS) --port $(PORT) $(MANY)

lab: $(READY)  ## Run the whole front door in network namespaces (Linux, root), fail it in mid-sale, write out/lab.html.
	@scripts/need $(EDGE)
	@mkdir -p out
	$(BIN)/ticketrush edge lab --report out/lab.html

test: $(READY)  ## Pass every test but the slow ones: unit, contract, property, faults, e2e, lab.
	@scripts/need ab wrk nginx openssl curl chromium
	@$(LAB)
	@$(KAFKA)
	$(BIN)/python -m pytest -m 'not slow' $(SIDE_BY_SIDE) $(TESTS)

test-all: $(READY)  ## Pass every test, the slow ones too.
	@scripts/need ab wrk nginx openssl curl chromium
	@$(LAB)
	@$(KAFKA)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(TESTS)

faults: $(READY)  ## Kill, stop, cut and fill the disk, at full length: 100 × kill -9 under load.
	@scripts/need nginx
	@$(KAFKA)
	TICKETRUSH_FAULT_ROUNDS=100 $(BIN)/python -m pytest tests/faults

check: $(READY)  ## Check format, lint, types and layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Put the code into its format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Measure the speed side by side with nginx, write out/bench.json.
	@scripts/need wrk nginx
	@mkdir -p out
	$(BIN)/ticketrush bench --redis-details --json out/bench.json

docs: $(READY)  ## Write the tables of settings in docs/ again from the code.
	$(BIN)/python scripts/configuration_page.py docs/configuration.md
	$(BIN)/python scripts/cluster_file_tables.py docs/front-door.md

pins: $(READY)  ## Write constraints.txt again from newest versions that fit.
	scripts/pin

clean:  ## Remove what these targets made.
	rm -rf $(VENV) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
