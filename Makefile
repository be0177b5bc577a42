# Targets for developers and CI.

.DEFAULT_GOAL := help
# A recipe fails if any program of a pipe fails.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help run demo test lint style lines repeat-tests dependencies bench bench-scale bench-micro bench-table simulate chaos failpoints mutations mutants power-loss outage flood fuzz \
	test-rabbitmq compose-test dist dist-reproducible docs package-test helm-test types types-test check-faults

# The targets for newcomers are at the end of the file, so that a small terminal shows them.
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

simulate: ## simulate the forwarder with model journals, brokers and crashes (SEEDS=1000000 FROM=0)
	@scripts/simulate.sh "$(SEEDS)" "$(FROM)"

failpoints: ## crash at every failpoint, ROUNDS=10 times each, cut a connection at every byte: nothing is lost
	@scripts/test-needs.sh
	@FAILPOINT_ROUNDS=$${ROUNDS:-10} cargo test --locked --features failpoints,otel --test it -- \
		failpoints::crash_ publisher::connection_cuts:: --nocapture

mutations: ## apply each bug of tests/mutations to a copy; the test it names must fail (NAME=returned-is-delivered)
	@scripts/test-needs.sh
	@scripts/mutations.sh $(NAME)

mutants: ## change the pure core with cargo-mutants, run the unit tests (FILE=src/webhook/split SHARD=0/8)
	@cargo install --quiet --locked --root .dev/cargo cargo-mutants@27.1.0
	@.dev/cargo/bin/cargo-mutants mutants $(if $(FILE),--re '$(FILE)') $(if $(SHARD),--shard $(SHARD))

power-loss: ## power failures under load on a real ext4 (ROUNDS=100 [SEED=] [EATMYDATA=1, which must fail])
	@scripts/test-needs.sh
	@# In its own mount namespace: otherwise a container that starts meanwhile keeps a failed disk mounted.
	@POWER_LOSS_ROUNDS=$(or $(ROUNDS),100) POWER_LOSS_SEED=$(SEED) POWER_LOSS_EATMYDATA=$(EATMYDATA) \
		unshare --mount cargo test --locked --test it -- --exact --nocapture \
		disk::power_loss::power_loss_loses_nothing_acknowledged

check-faults: ## seeded faults, RUNS=40 each: `check` must be consistent and name the cause first
	@scripts/test-needs.sh
	@CHECK_RUNS=$(or $(RUNS),40) cargo test --locked --features failpoints,otel --test it -- check::faults:: --nocapture

test-rabbitmq: ## all tests with another RabbitMQ, as root (VERSION=4.0 or 4.3 [TESTS="dead_letters:: check::"])
	@scripts/test-rabbitmq.sh $(VERSION) $(if $(TESTS),--test it -- $(TESTS))

outage: ## an alarm, a frozen broker and a dead link, SECONDS=60 each: what the sender notices
	@scripts/test-needs.sh
	@OUTAGE_SECONDS=$(or $(SECONDS),60) cargo test --locked --release --test it outages::sender_view:: -- --nocapture --test-threads 1

lines: ## lines of each room of src and of the tests, with their ceilings in lines.toml
	@scripts/lines.sh

repeat-tests: ## make test several times; a test that passes only when it is run again fails (TIMES=10 [BUSY=1])
	@scripts/repeat-tests.sh $(or $(TIMES),10) $(BUSY)

style: ## check formatting, spelling and shell scripts
	@scripts/style.sh

lint: ## the same, clippy and dependencies
	@scripts/lint.sh

dependencies: ## check licences, bans, sources of all dependencies; advisories if they can be fetched
	@scripts/dependencies.sh

bench: ## benchmark a release build against bare lapin and a forwarder (BENCH_ONLY=speed,answers,outage,idle,overload,steady,retention,ext4)
	@scripts/test-needs.sh
	@cargo bench --locked --bench bridge

bench-scale: ## CPU time and memory by size of backlog, sessions, arrays, bodies, routes
	@scripts/test-needs.sh
	@BENCH_ONLY=scale cargo bench --locked --bench bridge

bench-micro: ## benchmark single steps, add them to the results of make bench (STEP=split: print one step only)
	@cargo bench --locked --bench micro -- $(STEP) $(if $(STEP),,| scripts/figures.py steps)

bench-table: ## update docs/performance.md and its plot from bench/results.json
	@scripts/figures.py write

chaos: ## faults of all kinds and hostile clients under load; check that nothing is lost (MINUTES=3 SEED=1 RUNS=1, or KIND=strangers, or KIND=crash ROUNDS=500)
	@scripts/test-needs.sh
	@CHAOS_MINUTES=$(or $(MINUTES),3) CHAOS_SEED=$(SEED) CHAOS_RUNS=$(RUNS) CHAOS_RATE=$(RATE) \
	 CHAOS_KIND=$(KIND) CHAOS_ROUNDS=$(ROUNDS) \
	 cargo test --locked --release --test chaos -- --exact campaign_loses_nothing --nocapture

fuzz: ## fuzz every target for SECONDS=60 each
	@scripts/fuzz.sh $(or $(SECONDS),60)

flood: ## many forged webhooks and slow or busy connections, together with a genuine sender
	@DESKBRIDGE_FLOOD=1 cargo test --locked --release --test it attack:: -- --nocapture --test-threads 1

compose-test: ## test docker-compose.yml unchanged on a real container engine
	@scripts/compose-test.sh

dist: ## one release build, and from it in dist: .deb, .rpm, tarball, container image, SBOM, checksums
	@scripts/dist.sh

dist-reproducible: ## build twice in different folders, compare every file of dist (long)
	@scripts/dist-reproducible.sh

docs: ## make a website of README and docs, with search, in book; check its links
	@scripts/docs.sh

package-test: ## test .deb and .rpm of dist in a booted Debian 12, as root (RESTARTS=10 [BEFORE=older-binary])
	@PACKAGE_TEST_RESTARTS=$(RESTARTS) PACKAGE_TEST_BEFORE=$(BEFORE) scripts/package-test.sh

helm-test: ## lint, render and validate the Helm chart for every combination of its boolean values
	@scripts/helm-test.sh

types: ## generate examples/types from the strict schema, with pinned generators
	@scripts/types.sh write

types-test: ## examples/types are what the generators give; TypeScript, Python and C# compilers accept sessions
	@scripts/test-packages.sh
	@scripts/types.sh install
	@cargo test --locked --features failpoints,otel --test it -- --include-ignored schemas::types::

demo: ## broker, bridge, one webhook; prints the received message and ends
	@scripts/run.sh demo

run: ## the same, but keeps serving until Ctrl-C
	@scripts/run.sh

test: ## all tests, against a private RabbitMQ (installed if it is missing)
	@scripts/test.sh
