# `make help` says what there is. Everything runs in .venv, which `make setup` builds from requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
KAFKA  := .kafka/libs/.ready
PIP    := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench dashboards lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(STAMP) ## build .venv from the lock file (once; about 3 GB, most of it TensorFlow)

demo: setup ## weather at three airports: fit, stream, forecast, score; needs nothing installed but Python
	@$(BIN)/killick demo

test: setup $(KAFKA) ## run the tests, on a real Kafka and Redis where the machine has Java, Maven and Redis
	@$(BIN)/python -m pytest

check: setup ## ruff and mypy --strict
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: setup $(KAFKA) ## list the benchmarks and how to run each
	@$(BIN)/python -m benchmarks

dashboards: setup ## write grafana/dashboards anew, and check them against Grafana's types (needs Node)
	@$(BIN)/python -m grafana.build
	@if command -v npm >/dev/null; then \
	  cd tests/grafana/types && npm install --silent --no-package-lock --no-audit --no-fund && node check.mjs; \
	else \
	  echo "dashboards: written; no Node here, so they were not checked against Grafana's types (apt-get install npm)"; \
	fi

lock: setup ## make the three lock files anew from pyproject.toml (needs uv)
	$(COMPILE) --all-extras --upgrade --output-file requirements.lock pyproject.toml
	$(COMPILE) --constraint requirements.lock --output-file requirements.runtime.lock pyproject.toml
	echo 'hatchling>=1.27' | $(COMPILE) --constraint requirements.lock --output-file requirements.build.lock -

clean: ## remove all that the other commands made
	rm -rf $(VENV) .kafka build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis \
	  tests/grafana/types/node_modules tests/grafana/types/generated.ts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The editable installation points at the working tree, so only other requirements make it stale.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "killick needs Python 3.11 or newer, this is %d.%d: make PYTHON=/path/to/python3.11 setup" % v[:2])'
	@echo "setup: a virtual environment in $(VENV)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "setup: no venv module: on Debian, apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "setup: the packages of requirements.lock (about 700 MB the first time; minutes)"
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@echo "setup: done"

# Apache Kafka's jars, once. Without Java and Maven the tests that need Kafka skip, and say so.
$(KAFKA): tests/services/pom.xml
	@if command -v mvn >/dev/null && command -v java >/dev/null; then \
	  echo "kafka: fetching Apache Kafka's jars (about 60 MB, once)"; rm -rf .kafka/libs; \
	  mvn -q -B -C -f tests/services/pom.xml dependency:copy-dependencies -DoutputDirectory="$(CURDIR)/.kafka/libs" && touch $@; \
	else \
	  echo "kafka: no Java or no Maven here, so tests that need Kafka skip (Debian: apt-get install openjdk-17-jre-headless maven)"; \
	fi
