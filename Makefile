# Everything a developer or a newcomer runs; `make` or `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Made anew when a dependency changes: what the service and its client need, and everything.
SERVICE := $(VENV)/.service
STAMP := $(VENV)/.installed
DEPENDENCIES := pyproject.toml clients/python/pyproject.toml server/transcoder/pyproject.toml constraints.txt tools/setup.sh
ARGS ?=
# Tests start servers by the hundred: each would compile its modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Files that differ from main, or from the commit that BASE names, untracked ones too.
BASE ?= main
CHANGED = { git diff --name-only $$(git merge-base HEAD $(BASE)); git ls-files -o --exclude-standard; }

.PHONY: help
help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## Make the virtual environment with everything in it

$(STAMP): $(DEPENDENCIES)
	@PYTHON=$(PYTHON) tools/setup.sh $(VENV) everything
	@touch $(SERVICE) $@

# A newcomer need not wait for the developers' tools, which take five times the space.
$(SERVICE): $(DEPENDENCIES)
	@PYTHON=$(PYTHON) tools/setup.sh $(VENV) service
	@touch $@

.PHONY: serve
serve: $(SERVICE) ## Run the service on SQLite (options: make serve ARGS="--http-port 9090")
	@exec $(BIN)/upload-server serve $(ARGS)

.PHONY: demo
demo: $(SERVICE) ## Fill the running service with uploads and cancels (ARGS="--seconds 300 --target localhost:50051")
	@$(BIN)/python tools/demo.py $(ARGS)

.PHONY: cluster
cluster: setup ## Run three nodes on PostgreSQL and an object store behind Envoy, until Ctrl-C (ARGS="--nodes 5 --port 8001")
	@cd tests && exec ../$(BIN)/python -m support.fleet $(ARGS)

.PHONY: test
test: setup ## Run the tests (one: make test ARGS="-k cancel")
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

.PHONY: test-fast
test-fast: setup ## Run what a change of a few files needs, under a minute (against main, or BASE=COMMIT)
	@$(BIN)/pytest -n auto --dist worksteal $$($(CHANGED) | $(BIN)/python -m tools.fast_tests) $(ARGS)

.PHONY: prove
prove: setup ## Run all that the promises are proved by, print figures (ARGS="--minutes 30 --seed 7"; docs/reliability.md)
	@cd tests && exec ../$(BIN)/python -m robustness.prove $(ARGS)

.PHONY: crash
crash: setup ## Of that only the crashes: killed by the hundred under traffic (ARGS="--minutes 10")
	@cd tests && exec ../$(BIN)/python -m robustness.prove --only crashes $(ARGS)

.PHONY: soak
soak: setup ## Of that only the soak: cancelled uploads and broken watches by the thousand (ARGS="--minutes 60")
	@cd tests && exec ../$(BIN)/python -m robustness.prove --only soak $(ARGS)

.PHONY: lint
lint: setup ## Check style, types, import directions and protos
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy server/upload_server server/transcoder/transcoder clients/python/upload tests tools
	@$(BIN)/mypy server/transcoder/tests
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/lint_protos.sh

.PHONY: format
format: setup ## Format the code and the protos
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w --path protos/upload

.PHONY: generate
generate: setup ## Make the generated code from the protos
	@PATH="$(CURDIR)/$(BIN):$$PATH" buf generate

.PHONY: generate-go
generate-go: setup ## Make the Go client's generated code from the protos (needs Go)
	@PATH="$(CURDIR)/$(BIN):$$PATH" CGO_ENABLED=0 buf generate --template buf.gen.go.yaml

.PHONY: console
console: ## Make the page at / and the TypeScript messages from their source (needs Node)
	@cd clients/typescript && npm ci --silent && PATH="$(CURDIR)/$(BIN):$$PATH" npm run --silent generate && npm run --silent build:console

.PHONY: test-typescript
test-typescript: setup ## Check and test the TypeScript client against a real server (needs Node)
	@cd clients/typescript && npm ci --silent && npm run --silent check && npm test --silent

.PHONY: openapi
openapi: setup ## Make the OpenAPI document from the protos (needs Go)
	@PATH="$(CURDIR)/$(BIN):$$PATH" buf generate --template buf.gen.openapi.yaml

.PHONY: descriptors
descriptors: setup ## Make the descriptors that Envoy's transcoder reads
	@$(BIN)/python -m tools.descriptor_set deploy/upload.binpb

.PHONY: dist
dist: ## Make and check all packages: wheels, sdists, npm, Go, SBOMs, hashes (GO_MODULE=path; docs/releasing.md)
	@PYTHON=$(PYTHON) GO_MODULE=$(GO_MODULE) tools/dist.sh dist

.PHONY: bench
bench: setup ## Run the benchmarks (minutes; figures are ratios of one run)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

.PHONY: hops
hops: setup ## Count the functions that one cancel enters (ARGS="--list" names them)
	@$(BIN)/python -m tools.hops $(ARGS)

.PHONY: clean
clean: ## Remove what these commands made (not the data)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
