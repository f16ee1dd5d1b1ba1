# Everything starts here: `make demo` and `make test` do their own set-up on a fresh machine.
#
#   make PYTHON=python3.12 test      another interpreter (.venv is made anew with it)
#   make BROKER=4.3 test             the private node is RabbitMQ 3.10, 4.0 or 4.3, whatever is installed
#   make AMQP_URL=amqp://... test    a broker that is running already, instead of a private node
#   make URL=amqp://... demo bench   the same against a real broker
#   make SECONDS=3600 soak fuzz      for so long
#   make ARGS="-k cancel" test       more arguments for pytest (or benchmarks, or ruff)

PYTHON ?=
ARGS ?=
URL ?=
BROKER ?=
SECONDS ?= 600
export PYTHON AMQP_URL BROKER

RUN := .venv/bin/python
# The unit tests use every core. The scenarios share theirs with the broker, two at a time.
# tests/unit and tests/defects need nothing but what is installed; the others the checkout.
UNIT_TESTS = $(RUN) -m pytest -n auto --dist worksteal tests/unit tests/defects tests/benchmarks tests/packaging
BROKER_TESTS = $(RUN) -m pytest tests/broker
SOURCES := pyproject.toml setup.py .ci/setup $(wildcard *.pyx pika_twisted/*/*.pyx pika_twisted/codec/*.pxi)

.DEFAULT_GOAL := help
.PHONY: help venv build debug demo test test-unit test-broker test-long test-asan coverage fuzz model soak bench check instructions matrix \
	docs wheel clean broker always

help:  ## show this
	@echo "pika-twisted: RabbitMQ for Twisted, with a compiled codec. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@sed -n '3,8s/^# /  /p' Makefile

venv: .venv/.installed  ## create .venv, build the package and install it with its test tools

build: venv  ## compile again what has changed

# An editable install would build in a folder that it removes, and the pages with it.
debug: venv .venv/.group-build  ## compile with bounds checks, C assertions and line tracing; back: make -B build
	PIKA_TWISTED_DEBUG=1 $(RUN) setup.py -q build_ext --inplace --force --build-temp build/annotated

# Made anew when a source of the extensions or the metadata changes, or PYTHON names another one.
.venv/.installed: $(SOURCES) $(if $(PYTHON),always)
	@.ci/setup venv
	@touch $@

broker:
	@.ci/setup broker

demo: venv  ## consume half a million messages, beside pika's adapter (URL=amqp://... for a broker)
	$(RUN) -m benchmarks demo $(if $(URL),--url "$(URL)") $(ARGS)

test: venv broker .venv/.group-broker  ## the whole suite, with a private RabbitMQ node (10 minutes at most)
	@unit=0; broker=0; \
	$(UNIT_TESTS) $(ARGS) || unit=$$?; \
	$(BROKER_TESTS) $(ARGS) || broker=$$?; \
	case $$unit$$broker in 00 | 05 | 50) ;; *) exit 1 ;; esac  # 5: ARGS chose none of this half

test-unit: venv  ## only what needs no broker
	$(UNIT_TESTS) $(ARGS)

test-broker: venv broker .venv/.group-broker  ## only what talks to a real RabbitMQ
	$(BROKER_TESTS) $(ARGS)

test-long: venv broker .venv/.group-broker  ## the scenarios that take long, in full
	PIKA_TWISTED_TEST_LONG=1 $(BROKER_TESTS) $(ARGS)

test-asan: venv .venv/.group-build  ## the unit suite under AddressSanitizer and UBSan (gcc)
	.github/scripts/asan.sh $(ARGS)

coverage: venv .venv/.group-build .venv/.group-coverage  ## which lines of Python and Cython the unit suite runs (Python 3.10, 3.11)
	.github/scripts/coverage.sh $(ARGS)

fuzz: venv  ## libFuzzer under ASan, UBSan and LSan, every core, ten minutes (ARGS="--target stream")
	@.ci/setup fuzz
	$(RUN) -m tests.fuzz run --seconds $(SECONDS) $(ARGS)

model: venv  ## random programs over the broker in memory, ten minutes (ARGS="--seed 1000")
	$(RUN) -m tests.model run --seconds $(SECONDS) $(ARGS)

soak: venv broker  ## load for ten minutes with connections cut; memory and counts (ARGS="--rate 200")
	$(RUN) -m tests.soak --seconds $(SECONDS) $(ARGS)

.venv/.bench: .venv/.installed pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	@touch $@

bench: venv .venv/.bench  ## every benchmark, beside the other clients (URL=amqp://... for a broker)
	@.ci/setup rabbitmq-c
	$(RUN) -m benchmarks $(if $(URL),--url "$(URL)") $(ARGS)

# Tools of one dependency group of pyproject.toml.
.venv/.group-%: .venv/.installed pyproject.toml
	@$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --group $*
	@touch $@

check: venv .venv/.group-check  ## lint, formatting, spelling, types, the stubs
	@mkdir -p build/check
	$(RUN) -m ruff check . $(ARGS)
	$(RUN) -m ruff format --check .
	.venv/bin/codespell
	$(RUN) .github/scripts/expand_matrix.py > build/check/jobs.txt
	@.github/scripts/join_codec.sh > build/check/_frame.pyx
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/cython-lint build/check/_frame.pyx $(wildcard pika_twisted/*/*.pyx)
	$(foreach source,$(wildcard *.pyx pika_twisted/*/*.pyx),\
		.venv/bin/cython -Werror -o build/check/$(notdir $(source)).c $(source) &&) true
	$(RUN) -m mypy
	.venv/bin/pyright --pythonpath $(RUN)
	$(RUN) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/typing/stubtest.allow pika_twisted._frame pika_twisted.deferreds._ready

matrix: venv .venv/.group-broker  ## Pythons x pika x Twisted x RabbitMQ, into docs/compatibility.md (an hour)
	$(RUN) .github/scripts/run_matrix.py $(ARGS)

instructions: venv  ## no more instructions per message than benchmarks/ceilings.json allows (valgrind)
	@.ci/setup valgrind
	$(RUN) -m benchmarks codec --ceilings check

docs: venv .venv/.group-docs  ## the documentation, into build/docs
	$(RUN) -m sphinx -W --keep-going -q -b html docs build/docs

wheel: venv  ## sdist and wheels as a release has them, tested in clean environments (ARGS="--no-test")
	$(RUN) .github/scripts/make_wheels.py $(ARGS)

clean:  ## remove what was built, and .venv
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage* htmlcov
	rm -f *.c *.html
	find pika_twisted -name '*.so' -delete -o -name '*.pyd' -delete -o -name '*.c' -delete -o -name '*.html' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
