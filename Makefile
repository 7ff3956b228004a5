# Every target is a thin line over a script or a module; `make` alone lists them.
VENV ?= .venv
PY := $(VENV)/bin/python
CORES ?= logical
CACHES := .mypy_cache .ruff_cache .pytest_cache .hypothesis
.DEFAULT_GOAL := help
.PHONY: help setup setup-run gen gen-check fmt lint type imports test test-cell check model up demo bench fresh conformance peers xds standards audit licences clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with everything needed to run and test
	@scripts/setup $(VENV)

setup-run: ## make .venv with what `make up` and `make demo` need
	@scripts/setup $(VENV) run

gen: setup ## generate the stubs in libs/api from protos/, and the schema of the configuration
	@scripts/gen $(PY) libs/api/src
	@$(PY) -m penstock.stack config schema > deploy/penstock.schema.json

gen-check: setup ## fail when the stubs are stale
	@scripts/gen-check $(PY)

fmt: setup ## format code and contracts
	@$(VENV)/bin/ruff format -q .
	@$(VENV)/bin/ruff check -q --fix . || true
	@scripts/buf format -w

lint: setup ## check the style of code and contracts
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@scripts/buf lint

type: setup ## check the types
	@scripts/type $(VENV)

imports: setup ## check which package imports which
	@$(VENV)/bin/lint-imports --no-cache >/dev/null || $(VENV)/bin/lint-imports --no-cache

test: setup model ## run all tests, as many files at once as there are cores
	@$(PY) -m pytest -n $(CORES) --no-loadscope-reorder

test-cell: setup model ## run the black-box tests again, with the deciding services in one process
	@PENSTOCK_SHAPE=cell $(PY) -m pytest tests/black_box

check: lint type imports gen-check ## every check that is not a test

model: setup-run ## make the default models, an encoder and a chat model, in .penstock/
	@scripts/model $(VENV)
	@scripts/model $(VENV) chat

up: model ## run everything in the foreground; CONFIG=mine.yaml for your own file, TLS=1 over TLS
	@$(PY) -m penstock.stack up $(if $(CONFIG),--config "$(CONFIG)") $(if $(TLS),--tls)

demo: model ## send 400 agent requests and show what each service does
	@$(PY) -m penstock.stack demo $(if $(TLS),--tls)

bench: setup model ## run all benchmarks shortly; DATA=folder of public data sets: in full, writing docs/benchmarks/
	@$(PY) -m penstock.bench all $(if $(DATA),--data "$(DATA)" --write docs/benchmarks,--quick --json)

fresh: setup ## run both documented commands in fresh clones and log how they went
	@$(PY) -m penstock.bench.fresh

conformance: setup model ## run unmodified clients against a gateway and log how they went
	@scripts/conformance
	@$(PY) -m penstock.bench.conformance

peers: ## make .venv-peers with what benchmarks compare with
	@scripts/peers

xds: ## make .venv-xds with Envoy's own stubs, for the test of an unmodified rate limit client
	@python3 -m venv .venv-xds
	@.venv-xds/bin/pip install -q xds-protos==1.85.0

audit: setup ## look for known weaknesses of the installed packages; needs a network
	@scripts/audit $(VENV)

licences: setup-run ## list the licence of every installed package
	@scripts/licences $(VENV)

standards: ## get a Prometheus and Node's OpenTelemetry exporters, for tests against them
	@scripts/standards

clean: ## remove what the targets made, except the models and data in .penstock/
	@rm -rf $(VENV) .venv-peers .venv-peers-litellm .venv-conformance .venv-xds .prometheus \
	  node_modules tests/conformance/node/node_modules $(CACHES)
