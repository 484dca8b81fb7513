# `make help` lists the targets. Needs nothing but git and make: `setup` installs the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(HOME)/.cargo/bin:$(PATH)

# One profile for everything: the debug profile would build Faiss a second time and measures nothing real.
CARGO_FLAGS := --release --locked
VULTUS := target/release/vultus
PYTHON := .venv/bin/python
KILLS ?= 1000
FUZZ_CASES ?= 1000000
PROPERTY_CASES ?= 10000

.PHONY: help setup build model demo test test-python test-rust lint crash fuzz load load-long learn-covers detector-views clean-data

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## Install the Debian packages that are missing, and the Python client's environment.
	@scripts/setup.sh

build: setup ## Build target/release/vultus, and vultus-load beside it.
	cargo build $(CARGO_FLAGS) --workspace

model: build ## Fetch the default model and its package's photos into data/, and check the digest.
	$(VULTUS) model fetch --photos data/photos

demo: model ## The whole story on real faces: enrol, verify, identify a planted duplicate, show the case.
	$(VULTUS) demo --models data/models

test: model test-python test-rust ## Every test, with the default model.

test-python: ## The Python client against a real server; needs `make model`.
	$(PYTHON) tests/python/test_client.py

test-rust: ## Unit, property and whole-service tests; needs `make model` for the last.
	cargo test $(CARGO_FLAGS) --workspace

lint: setup ## Format, clippy and the tidy test, all without warnings.
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	cargo test $(CARGO_FLAGS) --test tidy

crash: model ## Kill the server KILLS times (1000) while it enrols, and look for lost or half references.
	VULTUS_KILLS=$(KILLS) cargo test $(CARGO_FLAGS) --test crash -- --nocapture

fuzz: model ## FUZZ_CASES mutated images (1000000), and PROPERTY_CASES of every property (10000); takes hours.
	VULTUS_FUZZ_CASES=$(FUZZ_CASES) PROPTEST_CASES=$(PROPERTY_CASES) cargo test $(CARGO_FLAGS) --workspace -- --nocapture

load: model ## Load a server on loopback with ghz: constant, step, spike, mixed lanes; SCENARIOS=... for some.
	benches/ghz/run.sh $(SCENARIOS)

load-long: model ## Overload for a minute, a flood, 50 rolling restarts, 100000 mixed requests: figures, in a quarter of an hour.
	VULTUS_OVERLOAD_S=60 VULTUS_FLOOD_S=10 VULTUS_FLOOD_ROUNDS=3 VULTUS_RESTARTS=50 \
		cargo test $(CARGO_FLAGS) --workspace --test load -- --nocapture
	VULTUS_REQUESTS=100000 cargo test $(CARGO_FLAGS) --test service mixup -- --nocapture

learn-covers: model ## Learn what covers look like anew: src/pipeline/quality/cover_weights.rs; needs the 40 crops, takes minutes.
	VULTUS_WRITE=1 cargo test $(CARGO_FLAGS) --test intake learn -- --ignored --nocapture

detector-views: model ## What the detector finds in smaller views: the table of decision 10; needs the 40 crops, takes minutes.
	cargo test $(CARGO_FLAGS) --test intake views -- --ignored --nocapture

clean-data: ## Remove data/: the demo's galleries, keys and the fetched model.
	rm -rf data
