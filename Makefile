# Everything a newcomer or CI needs, in one word each.

.DEFAULT_GOAL := help
.PHONY: help run demo test lint bench fuzz flood compose-test

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## broker, bridge and one webhook; serves until Ctrl-C
	@scripts/run.sh

demo: ## the same, and ends when the message has arrived
	@scripts/run.sh demo

test: ## all tests, against a private RabbitMQ (installed if it is missing)
	@scripts/test.sh

lint: ## formatting, clippy, licences and advisories, spelling
	@scripts/lint.sh

bench: ## speed, processor time and memory of a release build beside a plain publisher
	@scripts/test-needs.sh
	@cargo bench --locked --bench bridge

fuzz: ## looks SECONDS (60) a target for input that breaks the bridge
	@scripts/fuzz.sh $(or $(SECONDS),60)

flood: ## forged webhooks, slow and restless connections in numbers, beside a genuine sender
	@DESKBRIDGE_FLOOD=1 cargo test --locked --release --test it attack:: -- --nocapture --test-threads 1

compose-test: ## docker-compose.yml as it stands, on a real engine
	@scripts/compose-test.sh
