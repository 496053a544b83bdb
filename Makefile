# Everything that people and CI do with this repository. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help demo test check bench-hop bench-instructions e2e cluster cluster-down cluster-check cluster-images fmt clean lint

target := $(or $(CARGO_TARGET_DIR),target)
# The lock file is what was tested; nothing here may change it.
cargo := cargo --locked
# A fresh clone builds everything once: what would speed up a second time makes the first one longer.
ifdef CI
export CARGO_INCREMENTAL := 0
endif
# Always all of it: what else is asked for has other features, and with them the dependencies are built once more.
build := $(cargo) build --workspace --all-targets

help: ## what can be made
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## everything on this machine: a worker, its clones, a verdict, a promotion, a report in target/demo
	@scripts/prepare.sh
	$(cargo) build --release --bin understudy
	@exec $(target)/release/understudy demo --yes --out $(target)/demo

test: ## all tests, with real PostgreSQL servers and a real Kubernetes; what CI runs
	@scripts/prepare.sh drivers
	@scripts/drivers.sh || [ -z "$${CI:-}" ]
	@$(MAKE) --no-print-directory lint
	$(build)
	$(cargo) test --workspace --exclude understudy-kubernetes-tests
	@scripts/e2e.sh
	@echo 'make test: everything passed'

check: lint ## the fast core: format, lints, dependencies, and tests that need no server
	$(cargo) test --workspace --lib --bins
	$(cargo) test --workspace --test crd --test manifest_errors --test manifests
	@echo 'make check: everything passed'

bench-hop: ## what the mirror's hop costs, beside HAProxy and PgBouncer in the same run; target/bench/hop.json
	@scripts/prepare.sh bench
	$(cargo) build --release -p understudy-mirror -p understudy-bench --bins
	@$(target)/release/bench-hop --out $(target)/bench/hop.json

bench-instructions: ## instructions and system calls for one exchange, held against tests/bench/instructions.json
	@scripts/prepare.sh bench
	$(cargo) build --release -p understudy-mirror -p understudy-bench --bins
	@$(target)/release/bench-hop --out $(target)/bench/instructions.json instructions

e2e: ## the operator's tests on a real Kubernetes: the one of KUBECONFIG, or the test cluster (as root)
	@scripts/e2e.sh

cluster: ## a Kubernetes of three nodes on this machine, for tests (as root; builds it the first time)
	@scripts/prepare.sh cluster
	$(build)
	@$(target)/debug/test-cluster up --state $(target)/cluster --binaries $(target)/debug

cluster-down: ## ends the cluster and clears what it left
	@$(cargo) run --quiet -p understudy-test-cluster -- down --state $(target)/cluster

cluster-check: ## whether the running cluster is one: volumes, names, exec, another node
	cd tests/cluster/kubernetes && go test ./policy
	@$(cargo) run --quiet -p understudy-test-cluster -- check --state $(target)/cluster

cluster-images: ## makes the images again from what was changed, and gives them to the running cluster
	$(build)
	@$(target)/debug/test-cluster images --state $(target)/cluster --binaries $(target)/debug

lint:
	cargo fmt --all --check
	$(cargo) clippy --workspace --all-targets -- -D warnings
	@scripts/deny.sh

fmt: ## formats the code
	cargo fmt --all

clean: ## removes everything that was built; ends the test cluster first
	@if [ -e $(target)/cluster/machines ]; then $(MAKE) --no-print-directory cluster-down; fi
	cargo clean
