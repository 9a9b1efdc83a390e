# The venv is made again whenever the lock file changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-long test-realtime chaos soak bench throughput screenshots kafka clean

demo: $(READY)  ## everything at once on an embedded broker, for about half a minute
	@$(BIN)/python -m dataflow.demo

test: $(READY)  ## all tests; those that need a real Kafka are skipped where there is no Java
	@$(BIN)/python -m pytest

test-realtime: $(READY)  ## outages, pauses, backlogs: what takes minutes, because it is about time passing
	@$(BIN)/python -m pytest -m realtime tests/realtime

chaos: $(READY)  ## random kills, pauses and outages on a real Kafka; CHAOS="--seed 1-20" is one series, see --help
	@PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS)

soak: $(READY)  ## the same for an hour
	@PYTHONPATH=tests $(BIN)/python -m chaos --minutes 60 --every 15 $(CHAOS)

bench: $(READY)  ## how late sessions are, and what is held when users have gone; see bench/README.md
	@$(BIN)/python -m bench.on_time
	@$(BIN)/python -m bench.state

throughput: $(READY) kafka  ## events a second, beside a loop that only copies; 20 minutes, see bench/README.md
	@$(BIN)/python -m bench.throughput

screenshots: $(READY)  ## the pictures of the live page in the README; needs Chromium and pngquant
	@PYTHONPATH=tests $(BIN)/python -m support.screenshots

test-long: $(READY)  ## 10,000 random cases of each property instead of 300; says how many were tried
	@HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --hypothesis-show-statistics tests/test_any_order.py tests/test_codec.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
		|| { echo "Python 3.10, 3.11 or 3.12 is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

kafka: .kafka/.ready  ## the jars of a real Kafka, for tests and measurements; needs Java 17 and Maven

.kafka/.ready: tests/support/kafka/pom.xml
	@rm -rf .kafka
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/libs
	@touch $@

clean:
	rm -rf $(VENV) .kafka
