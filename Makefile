# The doors of Heyuan. Each does its own set-up on a fresh machine; scripts/ says how.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test soak bench cluster test-cluster check build

HEYUAN_CACHE ?= $(HOME)/.cache/heyuan
export HEYUAN_CACHE

help: ## Show the doors
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: build ## Start a demo tenant on 127.0.0.1:8080 and fill it through its public API
	@exec "$(HEYUAN_CACHE)/target/release/heyuan" demo run --data ./data --listen 127.0.0.1:8080 --plugins "$(HEYUAN_CACHE)/plugins"

test: ## Run every test, with its own PostgreSQL, plugins from source and SDKs as clients
	@scripts/setup.sh test
	@scripts/test.sh

soak: ## Kill the operator at every call of a tenant's life, each alone in a life of its own; hours
	@scripts/setup.sh test
	@source scripts/env.sh && HEYUAN_SOAK=1 cargo test --release -p heyuan-operator --test operator -- --nocapture crash calls_that_fail_once

bench: build ## Measure the bars and print them as a table
	@scripts/setup.sh test
	@"$(HEYUAN_CACHE)/target/release/heyuan-bench"

cluster: ## Start a Kubernetes with real pods on this machine (root, Linux); scripts/cluster.sh down removes it
	@scripts/setup.sh cluster
	@scripts/cluster.sh up

test-cluster: build ## Tenants' lives with real pods, on that Kubernetes (root, Linux)
	@scripts/setup.sh cluster
	@scripts/setup.sh test
	@tests/kubernetes/tenants.sh

check: ## Format, lints, documentation, dependencies
	@scripts/setup.sh check
	@scripts/check.sh

build: ## Leave the binaries under target/release
	@scripts/setup.sh build
	@scripts/build.sh
