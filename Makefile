# Everything a newcomer or CI needs, in one word each.

.DEFAULT_GOAL := help
.PHONY: help run demo test power-loss lint bench compose-test

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## broker, bridge and one webhook; serves until Ctrl-C
	@scripts/run.sh

demo: ## the same, and ends when the message has arrived
	@scripts/run.sh demo

test: ## all tests, against a private RabbitMQ (installed if it is missing)
	@scripts/test.sh

power-loss: ## power failures under load on a real ext4: ROUNDS=100 [SEED=] [EATMYDATA=1, which must fail]
	@scripts/test-needs.sh
	@POWER_LOSS_ROUNDS=$(or $(ROUNDS),100) POWER_LOSS_SEED=$(SEED) POWER_LOSS_EATMYDATA=$(EATMYDATA) \
		cargo test --locked --test it -- --exact --nocapture \
		disk::power_loss::nothing_that_was_acknowledged_is_lost_when_the_power_fails

lint: ## formatting, clippy, licences and advisories, spelling
	@scripts/lint.sh

bench: ## speed, processor time and memory of a release build beside a plain publisher
	@scripts/test-needs.sh
	@cargo bench --locked --bench bridge

compose-test: ## docker-compose.yml as it stands, on a real engine
	@scripts/compose-test.sh
