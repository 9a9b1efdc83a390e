# `make help` lists the targets. The virtual environment is made again when a lock file changes.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
PIP := -m pip install --quiet --disable-pip-version-check

PYTEST := $(BIN)/python -m pytest
IN_PARALLEL := -n auto --dist loadgroup

.PHONY: help demo test test-all test-slow lint format test-long test-realtime chaos soak bench throughput screenshots coverage \
	kafka lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' Makefile

demo: $(READY)  ## a shop and the job on an embedded broker for half a minute, checked in the end
	@$(BIN)/python -m dataflow demo

test: $(DEV)  ## what proves the promises, in minutes; tests on a real Kafka are skipped where there is no Java
	@$(PYTEST) $(IN_PARALLEL) -m "not slow and not realtime"

test-all: lint test test-slow  ## lint, test and test-slow

test-slow: $(DEV)  ## the rest of the tests: broker failures, chaos, a secured Kafka
	@$(PYTEST) -m "slow and not realtime"

lint: $(DEV)  ## ruff, mypy, and which package may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(DEV)  ## format the code, and apply what ruff can correct
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test-long: $(DEV)  ## 10,000 random cases of each property instead of 300
	@HYPOTHESIS_PROFILE=long $(PYTEST) -n auto --hypothesis-show-statistics tests/property

test-realtime: $(DEV)  ## outages, pauses and backlogs at the speed of the clock: minutes of waiting
	@$(PYTEST) -m realtime tests/realtime

chaos: $(DEV)  ## random kills, pauses and outages on a real Kafka; CHAOS="--seed 1-20" is one series, see --help
	@PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS)

soak: $(DEV)  ## the same for an hour
	@PYTHONPATH=tests $(BIN)/python -m chaos --minutes 60 --every 15 $(CHAOS)

bench: $(DEV)  ## how late sessions are, and what state is left when users have gone; see bench/README.md
	@$(BIN)/python -m bench.on_time
	@$(BIN)/python -m bench.state

throughput: $(DEV) kafka  ## events per second, beside a loop that only copies; 20 minutes, see bench/README.md
	@$(BIN)/python -m bench.throughput

screenshots: $(DEV)  ## the README's pictures of the live page; needs Chromium and pngquant
	@PYTHONPATH=tests $(BIN)/python -m support.screenshots

coverage: $(DEV)  ## which lines `make test` runs, in this process and in those that it starts
	@$(PYTEST) $(IN_PARALLEL) -m "not slow and not realtime" --cov --cov-report=term:skip-covered

# what the job needs: enough for the demo
$(READY): requirements.lock pyproject.toml
	@python=$$(scripts/find-python $(PYTHON)) || exit 1; \
	echo "installing the job's libraries into $(VENV), about half a minute, once ($$python)"; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python $(PIP) --require-hashes -r requirements.lock
	@$(BIN)/python $(PIP) --no-deps --editable .
	@touch $@

# and what tests and lint need
$(DEV): $(READY) requirements-dev.lock
	@echo "installing the tools for tests and lint into $(VENV), about half a minute, once"
	@$(BIN)/python $(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

kafka: .kafka/.ready  ## the jars of a real Kafka, for tests and measurements; needs Java 17 and Maven

.kafka/.ready: tests/support/kafka/pom.xml
	@echo "fetching Kafka's jars into .kafka, about a minute, once"
	@rm -rf .kafka
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/libs
	@touch $@

LOCK := uv pip compile pyproject.toml --universal --python-version 3.10 --generate-hashes --quiet --no-config \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:  ## bring requirements*.lock in line with pyproject.toml, versions kept where possible; needs uv
	@$(LOCK) -o requirements.lock
	@$(LOCK) --extra test --extra lint -c requirements.lock -o requirements-dev.lock

clean:  ## remove what make has installed and fetched
	rm -rf $(VENV) .venv-* .kafka
