# Everything a newcomer or CI needs, in one word each.

.DEFAULT_GOAL := help
# A recipe fails with the first program in a pipe that fails.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help run demo test lint dependencies bench bench-scale bench-micro bench-table simulate chaos failpoints plant power-loss outage flood fuzz \
	test-rabbitmq compose-test check-faults

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## broker, bridge and one webhook; serves until Ctrl-C
	@scripts/run.sh

demo: ## the same, and ends when the message has arrived
	@scripts/run.sh demo

test: ## all tests, against a private RabbitMQ (installed if it is missing)
	@scripts/test.sh

simulate: ## the forwarder against model journals, brokers and crashes (SEEDS=1000000 FROM=0)
	@scripts/simulate.sh "$(SEEDS)" "$(FROM)"

failpoints: ## crash at every named place, ROUNDS times (10), and lose nothing
	@scripts/test-needs.sh
	@FAILPOINT_ROUNDS=$${ROUNDS:-10} cargo test --locked --features failpoints --test it -- failpoints::a_crash --nocapture

plant: ## the tester tested: planted bugs, and which test catches each
	@scripts/plant.sh

power-loss: ## power failures under load on a real ext4: ROUNDS=100 [SEED=] [EATMYDATA=1, which must fail]
	@scripts/test-needs.sh
	@# With mounts of its own: a container that started meanwhile would keep a disk alive that was cut.
	@POWER_LOSS_ROUNDS=$(or $(ROUNDS),100) POWER_LOSS_SEED=$(SEED) POWER_LOSS_EATMYDATA=$(EATMYDATA) \
		unshare --mount cargo test --locked --test it -- --exact --nocapture \
		disk::power_loss::nothing_that_was_acknowledged_is_lost_when_the_power_fails

check-faults: ## seeded faults, RUNS=40 times each: `check` must agree with itself and name the cause first
	@scripts/test-needs.sh
	@CHECK_RUNS=$(or $(RUNS),40) cargo test --locked --features failpoints --test it -- check::faults:: --nocapture

test-rabbitmq: ## the same against another RabbitMQ: VERSION=4.0 or 4.3 [TESTS="dead_letters:: check::"] (as root)
	@scripts/test-rabbitmq.sh $(VERSION) $(if $(TESTS),--test it -- $(TESTS))

outage: ## alarms, a frozen broker and a dead link for a minute each: what the sender notices
	@scripts/test-needs.sh
	@OUTAGE_SECONDS=$(or $(SECONDS),60) cargo test --locked --release --test it outage:: -- --nocapture --test-threads 1

lint: ## formatting, clippy, dependencies, spelling, shell scripts
	@scripts/lint.sh

dependencies: ## licences, bans and sources of all dependencies; advisories, if the database can be fetched
	@scripts/dependencies.sh

bench: ## figures of a release build beside lapin alone and a forwarder (BENCH_ONLY=speed,answers,outage,idle)
	@scripts/test-needs.sh
	@cargo bench --locked --bench bridge

bench-scale: ## cost and memory as the work grows: backlog, sessions, arrays, bodies, routes
	@scripts/test-needs.sh
	@BENCH_ONLY=scale cargo bench --locked --bench bridge

bench-micro: ## single steps of a session's way, added to the results of make bench (STEP=split: one of them, to look at)
	@cargo bench --locked --bench micro -- $(STEP) $(if $(STEP),,| scripts/figures.py steps)

bench-table: ## README, docs/performance.md and its plot from bench/results.json
	@scripts/figures.py write

chaos: ## faults of every kind and strangers under load, then the verdict: MINUTES=3 SEED=1 RUNS=1, or KIND=strangers, or KIND=crash ROUNDS=500
	@scripts/test-needs.sh
	@CHAOS_MINUTES=$(or $(MINUTES),3) CHAOS_SEED=$(SEED) CHAOS_RUNS=$(RUNS) CHAOS_RATE=$(RATE) \
	 CHAOS_KIND=$(KIND) CHAOS_ROUNDS=$(ROUNDS) \
	 cargo test --locked --release --test chaos -- --exact nothing_is_lost_whatever_happens --nocapture

fuzz: ## looks SECONDS (60) a target for input that breaks the bridge
	@scripts/fuzz.sh $(or $(SECONDS),60)

flood: ## forged webhooks, slow and restless connections in numbers, beside a genuine sender
	@DESKBRIDGE_FLOOD=1 cargo test --locked --release --test it attack:: -- --nocapture --test-threads 1

compose-test: ## docker-compose.yml as it stands, on a real engine
	@scripts/compose-test.sh
