# The two commands of a fresh machine: `make demo` and `make test`. Both need only Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test ten-thousand chaos bench bench-smoke bench-quota bench-latency bench-flood check format venv lock clean
.DEFAULT_GOAL := demo

demo: venv  ## the main job, end to end, against a simulated FaceID
	$(BIN)/faceid-results demo $(ARGS)

test: venv  ## every test, on SQLite and Postgres, a folder and S3; ARGS="tests/domain -k mask" for some of them
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	$(BIN)/pytest --cov --numprocesses 4 --dist worksteal
	@$(BIN)/coverage report --include='app/faceid/*,app/domain/*' --fail-under=100 >.core-coverage || { cat .core-coverage; exit 1; }
endif

ten-thousand: venv  ## that many tokens, callbacks lost, doubled and out of order, on a simulated clock; on both databases
	TEST_TOKENS=10000 $(BIN)/pytest tests/test_ten_thousand.py --numprocesses 2 $(ARGS)

chaos: venv  ## kill -9, cut and spoil, then count what is left; ARGS="--seed 7 --kills 1000 --database postgres"
	$(BIN)/python -m tests.chaos $(ARGS)

bench: venv  ## what it costs, beside its peers and floors; ARGS="--only retrieval" for a part
	$(BIN)/python -m benchmarks $(ARGS)

bench-smoke: venv  ## the same, small: does the harness work?
	$(BIN)/python -m benchmarks --smoke $(ARGS)

bench-quota: venv  ## how much of Tencent's quota several workers use, never more; ARGS="--kill --workers 2 --rate 46 48"
	$(BIN)/python -m benchmarks.quota $(ARGS)

bench-latency: venv  ## what the service adds between a callback and the answer that waits for the result
	$(BIN)/python -m benchmarks.latency $(ARGS)

bench-flood: venv  ## what forged redirects cost: calls to Tencent, honest callers' time; ARGS="--seconds 20 --database postgres"
	$(BIN)/python -m benchmarks.flood $(ARGS)

check: venv  ## style, types, the order of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

venv: .venv/installed  ## creates .venv from the hash-locked requirements

.venv/installed: requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Extras stay: pip takes the newest of what is asked for by an extra, and refuses it because its hash is not there.
# The larger set is solved first: a benchmark's library may need an older version of what the service uses, too.
lock:  ## needs `uv`; writes both requirements files again, without index addresses
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-strip-extras --all-extras pyproject.toml -o requirements-dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-strip-extras -c requirements-dev.txt pyproject.toml -o requirements.txt

clean:
	rm -rf .venv
