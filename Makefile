# Jetway: what a developer, an evaluator and CI type. `make help` lists it.

SHELL := /bin/bash
CARGO ?= cargo
# Longer fuzzing: make fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 30

.DEFAULT_GOAL := help
.PHONY: help deps build demo test test-pure test-unit test-loom test-e2e test-dispatch test-load test-nic fuzz perf budgets lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing (Debian packages; needs root only if something is missing)
	@tests/install-deps.sh

build: ## the release binary, target/release/jetway
	@tests/install-deps.sh build
	$(CARGO) build --locked --release --workspace --bins

demo: ## a whole airport in network namespaces, shown step by step (DEMO_HOLD=1 keeps it up)
	@tests/install-deps.sh build world
	@tests/demo.sh

test: ## every test, from lint to the emulated machine; needs root
	@tests/install-deps.sh
	@tests/run.sh lint unit loom fuzz budgets e2e dispatch load nic

test-pure: ## what needs neither DPDK nor root: config, pipelines, AEAD, rings
	@tests/run.sh pure loom

test-unit: ## unit and property tests of every crate
	@tests/install-deps.sh build
	@tests/run.sh unit

test-loom: ## rings and table swap under every thread interleaving
	@tests/run.sh loom

test-e2e: ## end-to-end worlds with stock peers
	@tests/install-deps.sh build world
	@tests/run.sh e2e

test-dispatch: ## end-to-end worlds of services, servers that die, and gateways behind a dispatcher
	@tests/install-deps.sh build world
	@tests/run.sh dispatch

test-load: ## end-to-end worlds that want the machine for themselves: floods, crowds, many queues
	@tests/install-deps.sh build world
	@tests/run.sh load

test-nic: ## real NIC drivers in an emulated machine
	@tests/install-deps.sh
	@tests/run.sh nic

fuzz: ## fuzz every parser and state machine for FUZZ_SECONDS each
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/run.sh fuzz

perf: ## measure, beside peers, in one run of at most 15 minutes; results in perf/results
	@tests/install-deps.sh build world perf
	$(CARGO) build --locked --release --workspace --bins
	@perf/run.sh

budgets: ## the hot stages against their budgets in instructions
	@tests/install-deps.sh build perf
	@tests/run.sh budgets

lint: ## formatting and clippy
	@tests/run.sh lint

clean: ## remove what the build made
	$(CARGO) clean
