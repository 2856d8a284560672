# Needs make and Python >= 3.11, nothing else; every target that needs the environment makes it first.
# Another interpreter: `make venv PYTHON=/path/to/python3`. More arguments for pytest: `make test ARGS="-k lineage -x"`.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/development.toml
ARGS ?=
PYTHON ?=
IMAGE ?= plugin-server:local
ENGINE ?= $(firstword $(foreach engine,docker podman buildah,$(if $(shell command -v $(engine)),$(engine))))
UV_VERSION := 0.13.9
PIP_INSTALL = $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-input

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

## Environment ------------------------------------------------------------------------------------------------

.PHONY: venv
venv: $(VENV)/.installed ## Make the environment from requirements.lock (no network when it is up to date)

# Made anew when the lock changes, so that nothing the lock no longer names stays behind.
$(VENV)/.locked: requirements.lock
	@chosen=; without_venv=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then chosen=$$candidate; break; fi; \
	  without_venv=$${without_venv:-$$candidate}; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$$without_venv" ]; then \
	  echo "$$without_venv cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv (or python3.X-venv for a Python beside the system's)." >&2; \
	  exit 1; \
	fi; \
	if [ -z "$$chosen" ]; then \
	  echo "No Python >= 3.11 found (tried: $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3))." >&2; \
	  echo "Install one (Debian 12: apt-get install python3 python3-venv), or name it: make venv PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$chosen ($$("$$chosen" -c 'import platform; print(platform.python_version())')) from requirements.lock; about half a minute"; \
	"$$chosen" -m venv --clear $(VENV)
	@$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements.lock
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	@$(PIP_INSTALL) --no-deps --no-build-isolation --no-index --editable .
	@touch $@

.PHONY: docs
docs: venv ## Write the generated pages anew (docs/settings.md, docs/dialect.md)
	@$(BIN)/python docs/generate.py

.PHONY: lock
lock: ## Write the lock files anew after a change to pyproject.toml (UPGRADE=1: newest versions of all)
	@python=$(BIN)/python; [ -x $$python ] || python=$(or $(PYTHON),python3); \
	tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	"$$python" -m venv "$$tools/venv" && \
	"$$tools/venv/bin/python" -m pip --disable-pip-version-check install --quiet uv==$(UV_VERSION) && \
	compile() { "$$tools/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url "$$@"; } && \
	compile pyproject.toml --group dev $(if $(UPGRADE),--upgrade) -o requirements.lock && \
	compile pyproject.toml -c requirements.lock -o docker/runtime.lock && \
	compile --group build -c requirements.lock -o docker/build.lock && \
	echo "requirements.lock, docker/runtime.lock and docker/build.lock are written; commit them together."

## The server -------------------------------------------------------------------------------------------------

.PHONY: run
run: venv ## Start the whole server on the embedded log and database, with the example project
	@exec $(BIN)/plugin-server run --config $(CONFIG)

.PHONY: tail
tail: venv ## Follow the output of a running server: what each app changed, dropped, captured
	@exec $(BIN)/plugin-server tail --config $(CONFIG)

## Tests ------------------------------------------------------------------------------------------------------

.PHONY: test
test: venv ## Run all tests (those on real Kafka need Java and Maven, or TEST_KAFKA_BROKERS)
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: unit
unit: venv ## Run the unit tests: no I/O, under a minute
	@$(BIN)/python -m pytest tests/unit $(ARGS)

.PHONY: check lint format types imports notes
check: lint format types imports notes ## Lint, format, types, import direction, leftover notes; under 30 s (-k shows every fault)
lint: venv
	$(BIN)/ruff check .
format: venv
	$(BIN)/ruff format --check .
types: venv
	$(BIN)/mypy
imports: venv
	$(BIN)/python -m pytest -q tests/unit/test_imports.py
notes:
	@! grep -rnE 'TO[D]O|FIX[M]E' --exclude-dir=__pycache__ Makefile README.md CONTRIBUTING.md pyproject.toml \
	  $(wildcard .ci plugin_server sandbox tests docker configs examples benchmarks docs) \
	  || { echo "The notes above belong in an issue, or in the change itself." >&2; exit 1; }

.PHONY: bench
bench: venv ## Measure the throughput of the whole worker against real Kafka
	@$(BIN)/python benchmarks/throughput.py $(ARGS)

.PHONY: bench-sandbox
bench-sandbox: venv ## Measure what the sandbox costs: language, boundary, start, memory, recovery
	@$(BIN)/python benchmarks/sandbox.py $(ARGS)

.PHONY: bench-delivery
bench-delivery: venv ## Measure deliveries per second to a server that takes its time, and memory
	@$(BIN)/python benchmarks/delivery.py $(ARGS)

.PHONY: bench-jobs
bench-jobs: venv ## Measure jobs per second of several workers on a real Postgres
	@$(BIN)/python benchmarks/jobs.py $(ARGS)

## The image --------------------------------------------------------------------------------------------------

.PHONY: image
image: ## Build the container image with docker, podman or buildah (ENGINE=..., IMAGE=...)
	@if [ -z "$(ENGINE)" ]; then echo "Install docker, podman or buildah, or name another: make image ENGINE=..." >&2; exit 1; fi
	@# podman and buildah write the OCI format unless told otherwise, and that has no place for HEALTHCHECK.
	$(ENGINE) build --file docker/Dockerfile --tag $(IMAGE) \
	  $(if $(filter podman buildah,$(notdir $(ENGINE))),--format docker) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" .

.PHONY: image-check
image-check: ## Build the image on a fresh Debian and try it out (root, buildah, debootstrap; no registry, no daemon)
	@docker/image-check.sh

## Housekeeping -----------------------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove the environment, caches and build products; data/ (the embedded log and database) stays
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find plugin_server sandbox tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
