# Everything a newcomer or CI needs, in one word each.

.DEFAULT_GOAL := help
.PHONY: help run demo test simulate lint bench compose-test chaos test-rabbitmq outage

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

test-rabbitmq: ## the same against another RabbitMQ: VERSION=4.0 or 4.3 (as root)
	@scripts/test-rabbitmq.sh $(VERSION)

outage: ## alarms, a frozen broker and a dead link for a minute each: what the sender notices
	@OUTAGE_SECONDS=$${OUTAGE_SECONDS-60} scripts/test.sh --release --test it outage:: -- --nocapture --test-threads 1

lint: ## formatting, clippy, licences and advisories, spelling
	@scripts/lint.sh

bench: ## speed, processor time and memory of a release build beside a plain publisher
	@scripts/test-needs.sh
	@cargo bench --locked --bench bridge

chaos: ## faults of every kind under load, then the verdict: MINUTES=3 SEED=1 RUNS=1, or KIND=crash ROUNDS=500
	@scripts/test-needs.sh
	@CHAOS_MINUTES=$(or $(MINUTES),3) CHAOS_SEED=$(SEED) CHAOS_RUNS=$(RUNS) CHAOS_RATE=$(RATE) \
	 CHAOS_KIND=$(KIND) CHAOS_ROUNDS=$(ROUNDS) \
	 cargo test --locked --release --test chaos -- --exact nothing_is_lost_whatever_happens --nocapture

compose-test: ## docker-compose.yml as it stands, on a real engine
	@scripts/compose-test.sh
