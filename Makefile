# One virtual environment in .venv; every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
SOURCES_OF_THE_BUILD := pyproject.toml setup.py scripts/setup.sh $(shell find src -name '*.pyx' -o -name '*.px[di]')

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt bench screenshots conformance fuzz asan leaks setup system clean
.NOTPARALLEL:

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

demo: $(VENV)/.installed-run ## serve the chat room (ARGS="--port 9000 --workers 2")
	@$(BIN)/antiphon demo $(ARGS)

test: setup system ## all tests, on both twins (ARGS="tests/hub -k order" for some)
	@scripts/test.sh $(ARGS)

check: setup ## ruff, mypy strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

fmt: setup ## format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## measure against the alternatives
	scripts/bench.sh $(ARGS)

screenshots: setup system ## take the pictures in docs/images afresh
	$(BIN)/python scripts/screenshots.py

conformance: setup ## the protocol suite against the engine
	tests/conformance/run.sh $(ARGS)

fuzz: setup ## feed the engine garbage (ARGS="--seconds 60")
	$(BIN)/python -m tests.fuzz $(ARGS)

asan: setup ## the engine's tests on a native twin built with the address sanitizer
	scripts/asan.sh $(ARGS)

leaks: setup ## connections that come and go by the hundred thousand: memory stays (ARGS="--count 20000")
	$(BIN)/python -m tests.leaks $(ARGS)

setup: $(VENV)/.installed-dev ## the virtual environment with everything the tests use

system: setup ## chromium, redis-server and openssl, from the distribution when missing
	@scripts/system.sh

clean: ## remove the virtual environment, builds and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.so' -delete -o -name '*.egg-info' -type d -prune -exec rm -rf {} +

$(VENV)/.installed-run: $(SOURCES_OF_THE_BUILD)
	@[ -e $(VENV)/.installed-dev ] && scripts/setup.sh dev && touch $@ || scripts/setup.sh run

$(VENV)/.installed-dev: $(SOURCES_OF_THE_BUILD)
	@scripts/setup.sh dev
	@touch $(VENV)/.installed-run
