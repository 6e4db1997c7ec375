# On a fresh machine, run `make demo` or `make test`. Both need only Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# The requirements are complete, so pip need not look for dependencies. Python compiles a module when it is first imported.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile --no-deps
# The tests start hundreds of processes. Without byte code on disk, each would compile all modules again.
export PYTHONDONTWRITEBYTECODE :=
# Files and folders that `make prose` checks. ADR 0015 is superseded and keeps its wording; benchmarks/*.md are output.
PROSE := $(wildcard *.md docs/*.md) $(filter-out docs/adr/0015%,$(wildcard docs/adr/*.md))
PROSE += app simulator tests tools migrations benchmarks/*.py deploy docker-compose.yml Dockerfile Makefile .pre-commit-config.yaml
# The decisions, and the reading of Tencent's answers: their own tests cover every line and branch.
CORE := tests/domain tests/faceid

.PHONY: help demo test test-core test-others coverage test-compose test-clients test-oidc ten-thousand event-storm chaos bench bench-smoke bench-quota bench-latency bench-flood check prose format venv lock audit licences messages screenshots pin-images clean
.DEFAULT_GOAL := demo

help:  ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/runtime  ## run the main use case, end to end, against a simulated FaceID
	$(BIN)/faceid-results demo $(ARGS)

test: venv  ## run all tests, on SQLite and Postgres, a folder and S3; ARGS="tests/domain -k mask" for some of them
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	@$(MAKE) --no-print-directory --jobs 2 test-core test-others
endif

# The two run beside each other, because the others often wait. Only a failure of the first is shown whole.
test-core: venv
	@$(BIN)/pytest $(CORE) $(CORE:tests/%=--cov=app/%) --cov-fail-under=100 >.venv/core.log 2>&1 \
	  || { cat .venv/core.log; exit 1; }
	@tail -n 1 .venv/core.log

test-others: venv
	$(BIN)/pytest $(CORE:%=--ignore=%) --numprocesses 4 --dist worksteal

coverage: venv  ## run all tests once more, with the coverage of everything
	$(BIN)/pytest --cov --numprocesses 4 --dist worksteal

test-compose: venv  ## test docker-compose.yml on a container engine; COMPOSE=docker-compose for version 1.29
	TEST_COMPOSE=1 $(BIN)/pytest tests/test_compose.py $(ARGS)

test-clients: venv  ## generate clients in Python, TypeScript and Java, and use them; needs PyPI and npm
	TEST_CLIENTS=1 $(BIN)/pytest tests/test_clients.py --override-ini faulthandler_timeout=0 $(ARGS)

test-oidc: venv  ## sign in at two providers of OpenID Connect that others have written; needs PyPI and npm
	TEST_OIDC=1 $(BIN)/pytest tests/oidc/test_providers.py $(ARGS)

ten-thousand: venv  ## retrieve 10,000 tokens with lost, repeated and reordered callbacks, on a simulated clock and both databases
	TEST_TOKENS=10000 $(BIN)/pytest tests/test_ten_thousand.py --override-ini faulthandler_timeout=0 --numprocesses 2 $(ARGS)

event-storm: venv  ## change verifications with 16 writers that commit late or roll back, and check that readers of events lose nothing
	TEST_STORM=16x400 $(BIN)/pytest tests/test_event_storm.py $(ARGS)

chaos: venv  ## inject faults into real processes, then check all tokens; ARGS="--seed 7 --kills 1000 --database postgres"
	$(BIN)/python -m tests.chaos $(ARGS)

bench: venv  ## run all benchmarks; ARGS="--only retrieval" for one section
	$(BIN)/python -m benchmarks $(ARGS)

bench-smoke: venv  ## run every benchmark once, with small data, to test the harness
	$(BIN)/python -m benchmarks --smoke $(ARGS)

bench-quota: venv  ## measure how much of the quota several workers use; ARGS="--kill --workers 2 --rate 46 48"
	$(BIN)/python -m benchmarks.quota $(ARGS)

bench-latency: venv  ## measure the time that the service adds between a callback and its result
	$(BIN)/python -m benchmarks.latency $(ARGS)

bench-flood: venv  ## measure the cost of forged redirects for the quota and for honest callers; ARGS="--seconds 20 --database postgres"
	$(BIN)/python -m benchmarks.flood $(ARGS)
	$(BIN)/python -m benchmarks.attacks

check: venv prose  ## check style, prose, spelling, types and imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

prose: venv  ## check the writing rules of CONTRIBUTING.md, and spelling
	@$(BIN)/python -m tools.prose $(PROSE)
	$(BIN)/codespell

format: venv  ## format the code and fix simple findings
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

venv: .venv/installed  ## create .venv from the hash-locked requirements

.venv/installed: .venv/runtime requirements-dev.txt
	$(PIP) --require-hashes --only-binary :all: -r requirements-dev.txt
	@touch $@

# Everything that the service needs to run, with the extra `oidc`. The build backend comes from its lines of the development lock.
.venv/runtime: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	@awk '/^[a-z]/ { keep = /^(editables|hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' requirements-dev.txt >.venv/build.txt
	$(PIP) --require-hashes --only-binary :all: -r requirements.txt -r .venv/build.txt
	$(PIP) --no-build-isolation --editable .
	@touch $@

# The files keep extras. Without them pip would resolve an extra to its newest version, whose hash is not locked.
# The larger set is solved first, because a library of the benchmarks may need an older version of a dependency.
lock:  ## update the requirements files, without index addresses; needs uv
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-strip-extras --all-extras pyproject.toml -o requirements-dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-strip-extras -c requirements-dev.txt --extra oidc pyproject.toml -o requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-strip-extras --group audit -o requirements-audit.txt

# Asks both sources, because a mirror of PyPI has no advisories. pip-audit fails if a source cannot be reached; the report says so.
audit: .venv/audit/installed  ## check the locked requirements for known vulnerabilities, where an advisory source is reachable
	@rm -f .venv/audit/*.json
	@for source in pypi osv; do .venv/audit/bin/pip-audit --require-hashes --disable-pip --requirement requirements-dev.txt \
	  --vulnerability-service $$source --timeout 15 --progress-spinner off --format json --output .venv/audit/$$source.json \
	  >.venv/audit/$$source.log 2>&1 || true; done
	@$(BIN)/python -m tools.audit .venv/audit/pypi.json .venv/audit/osv.json

# An environment of its own, because pip-audit requires a newer pip.
.venv/audit/installed: requirements-audit.txt | .venv/runtime
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r requirements-audit.txt
	@touch $@

licences: venv  ## write the licences of all runtime requirements to docs/licences.md
	$(BIN)/python -m tools.licences

messages: venv  ## collect the texts of the console into the Chinese catalogue, and compile it
	$(BIN)/python -m tools.messages

screenshots: venv  ## make the pictures of the documentation from the demo's data; needs Debian's chromium and fonts-noto-cjk
	$(BIN)/python -m tools.screenshots

pin-images:  ## write the digests of the third-party images into docker-compose.yml and Dockerfile; needs docker and a registry
	deploy/pin-images.sh

clean:  ## remove .venv
	rm -rf .venv
