# One virtual environment in .venv; every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
export PYTHON
# Hundreds of processes start from these sources in a run of the tests: each would compile them again.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
SOURCES_OF_THE_BUILD := pyproject.toml setup.py scripts/setup.sh requirements/dev.lock requirements/run.lock \
	$(shell find src -name '*.pyx' -o -name '*.px[di]')

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest test-newest check coverage fmt lock docs dist bench limits screenshots conformance fuzz asan leaks setup system clean
.NOTPARALLEL:

# PYTHON=... of another version than .venv's asks for another .venv.
ifneq ($(PYTHON),)
ifneq ($(shell $(PYTHON) -V 2>/dev/null),$(shell [ ! -x $(BIN)/python ] || $(BIN)/python -V 2>/dev/null))
$(shell rm -f $(VENV)/.installed-*)
endif
endif

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

demo: $(VENV)/.installed-run ## serve the chat room (ARGS="--port 9000 --workers 2")
	@$(BIN)/antiphon demo $(ARGS)

test: setup system ## all tests, on both twins (ARGS="tests/hub -k order" for some)
	@scripts/test.sh $(ARGS)

test-lowest: setup system ## tests with the lowest versions that pyproject.toml promises (ARGS as for test)
	@scripts/setup.sh lowest
	@scripts/test.sh lowest $(ARGS)

test-newest: setup system ## tests with the newest version of everything, whatever the locks say (ARGS as for test)
	@scripts/setup.sh newest
	@scripts/test.sh newest $(ARGS)

check: setup ## ruff, mypy strict, complete public types, the English of documents, docstrings and comments, import directions, shape, public names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	scripts/public_types.sh
	$(BIN)/python scripts/prose.py
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_shape.py tests/test_public.py

coverage: setup system ## branch coverage of each module by the tests of its part (ARGS="hub routing" for some)
	$(BIN)/python scripts/covered.py $(ARGS)

fmt: setup ## format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## renew requirements/*.lock from pyproject.toml (ARGS="--upgrade-package fastapi" for one)
	@scripts/lock.sh $(ARGS)

docs: ## the site, into .cache/docs/site; a warning is an error (ARGS=serve shows it while you write)
	@scripts/docs.sh $(ARGS)

dist: ## the files of a release, into dist/, installed and used in clean environments (ARGS=build: only built)
	@scripts/setup.sh dist
	@.cache/dist/venv/bin/python scripts/dist.py build
	@[ "$(ARGS)" = build ] || .cache/dist/venv/bin/python scripts/dist.py try $(ARGS)

bench: setup ## measure against the alternatives
	scripts/bench.sh $(ARGS)

limits: setup ## measure what channels, JWT and rates add to a message; fails where it is clearly over its limit (two minutes)
	@for one in channel_micro.py jwt_micro.py "rates.py cost"; do $(BIN)/python benchmarks/$$one --check || failed=1; done; exit $${failed:-0}

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

system: setup ## chromium, node, redis-server, openssl, nginx, haproxy, caddy and python2.7, from the distribution when missing
	@scripts/system.sh

clean: ## remove the virtual environments, builds and caches
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.so' -delete -o -name '*.egg-info' -type d -prune -exec rm -rf {} +

$(VENV)/.installed-run: $(SOURCES_OF_THE_BUILD)
	@[ -e $(VENV)/.installed-dev ] && scripts/setup.sh dev && touch $@ || scripts/setup.sh run

$(VENV)/.installed-dev: $(SOURCES_OF_THE_BUILD)
	@scripts/setup.sh dev
	@touch $(VENV)/.installed-run
