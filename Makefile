# Everything people do with this repository. `make` lists it.
#
# One build profile for everything: RocksDB takes ten minutes to compile and is compiled once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BINARIES := clerk mr shardctrler shardkv grade
SEEDS ?= 200
SEED ?= 1
MIB ?= 1024
STRANGERS ?= 2000
TESTS ?=
# Options of the grader from variables: SHEET=2026 SEED=7 REPEAT=20 JOBS=2 REAL=1
GRADE_OPTIONS = $(if $(SHEET),--sheet $(SHEET)) --seed $(SEED) $(if $(REPEAT),--repeat $(REPEAT)) \
  $(if $(JOBS),--jobs $(JOBS)) $(if $(REAL),--real)

LINK = mkdir -p bin && for name in $(BINARIES); do ln -sfn "$(TARGET)/debug/$$name" "bin/$$name"; done
MEASURES := measure/compare,measure/criterion
# Options of the measurements from variables: ROUNDS=5 SECONDS=10 STORES=ours,etcd POINTS=put-64 JSON=out.json ROWS="keys move"
MEASURE_OPTIONS = $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))
COMPARE_OPTIONS = $(MEASURE_OPTIONS) $(if $(STORES),--stores $(STORES)) $(if $(POINTS),--points $(POINTS)) \
  $(if $(JSON),--json $(JSON))

.PHONY: help setup build demo mapreduce test check fix deny ops-check page-test docs dist up down sim grade model mutants big-move move-under-load catch-up crowd measures compare bench bench-growth

help: ## Lists the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Installs what the build needs and is missing (libclang for RocksDB's binding)
	@scripts/setup

build: setup ## Builds the programs and links them into bin/
	@$(CARGO) build --workspace --bins
	@$(LINK)

demo: build ## The whole system in under a minute: real data, a moving cluster, kill -9, verified
	@scripts/demo

mapreduce: build ## Counts words into a cluster while a worker, the coordinator and a leader are killed, and verifies each count
	@scripts/mapreduce

test: build ## Every test, from the pure core to real processes
	@$(CARGO) test --workspace --no-fail-fast

check: setup ## Read-only gate: format, clippy, documentation, tests
	@$(CARGO) fmt --all -- --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --workspace --features mutants/mutants,$(MEASURES) --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	@$(MAKE) --no-print-directory test

fix: setup ## Formats, and applies what clippy can
	@$(CARGO) fmt --all
	@$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

deny: ## Licences, bans, sources and advisories of the dependencies; installs cargo-deny when it is missing
	@scripts/deny

ops-check: build ## Judges the alert rules, and the metrics that real servers show; installs promtool when it is missing
	@scripts/ops-check

page-test: build ## Checks the live page in a browser, on made-up and on real clusters; installs Chromium when it is missing
	@scripts/page-test
	@scripts/page-test --cluster bin/clerk

docs: ## Builds the pages as a book in target/book/html and checks its links; installs mdbook when it is missing
	@scripts/docs

dist: build ## A tarball of the programs and its checksum, in dist/
	@scripts/dist

up: build ## Starts a local cluster in ./clerk-data
	@bin/clerk up

down: ## Stops it
	@bin/clerk down

sim: build ## Simulated runs over many seeds: make sim SEEDS=1000 SEED=1
	@SEEDS=$(SEEDS) SEED=$(SEED) $(CARGO) test -p storms --test simulated -- --nocapture

grade: build ## The labs' tests: make grade [TESTS="3B H12"] [SHEET=2026] [SEED=7] [REPEAT=20] [JOBS=2] [REAL=1]
	@bin/grade $(TESTS) $(GRADE_OPTIONS)

model: build ## The move protocol in every state over longer owner histories: a few minutes
	@MODEL=full $(CARGO) test -p move-model --test move_model -- --nocapture

mutants: setup ## Plants bugs in the product, one after the other, and shows which test catches each: some minutes
	@$(CARGO) run -p mutants --features mutants

big-move: build ## Moves one large shard and watches the memory of every process: make big-move MIB=1024
	@BIG_MOVE_MIB=$(MIB) $(CARGO) test -p integration-tests --test real_processes -- --nocapture a_shard_of_64_mib

move-under-load: build ## Moves a shard while clients write to it, also while servers die, and shows how long they waited: make move-under-load MIB=1024 [RATE=20]
	@MOVE_MIB=$(MIB) $(if $(RATE),MOVE_RATE=$(RATE)) $(CARGO) test -p integration-tests --test moves_under_load -- --nocapture --test-threads 1

catch-up: build ## Kills a follower for 4 s under 15 MB/s of puts, and watches how it catches up: make catch-up MIB=512
	@CATCH_UP_MIB=$(MIB) $(CARGO) test -p integration-tests --test real_processes -- --nocapture a_follower_that_was_away

crowd: build ## Strangers that are silent, slow or hostile, and how long an honest client waits: make crowd STRANGERS=2000
	@CROWD=$(STRANGERS) $(CARGO) test -p integration-tests --test crowds -- --nocapture --test-threads 1

# Everything that measures is built in one go, with everything else: cargo compiles a dependency again for each set of
# features that somebody asks for.
measures: setup
	@$(CARGO) build --workspace --bins --features $(MEASURES)
	@$(LINK)

compare: measures ## Our store beside etcd and Redis Cluster: make compare [ROUNDS=3] [SECONDS=3] [STORES=ours,etcd] [POINTS=put-64] [JSON=F]
	@scripts/compare-setup
	@"$(TARGET)/debug/compare" $(COMPARE_OPTIONS)

bench: measures ## Micro-benchmarks, then our store's end-to-end points
	@$(CARGO) bench --workspace --profile dev --features $(MEASURES) --bench raft_core --bench storage --bench codec -- --quiet
	@"$(TARGET)/debug/compare" --stores ours $(COMPARE_OPTIONS)

bench-growth: build ## Speed as the store grows: make bench-growth [ROWS="keys move"] [GROWTH="--keys 1000000 --mib 256"]; long
	@"$(TARGET)/debug/growth" $(ROWS) $(MEASURE_OPTIONS) $(GROWTH)
