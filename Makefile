# The two commands of a fresh machine: `make demo` and `make test`. Both need only Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test chaos check format venv lock clean
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

chaos: venv  ## kill -9, cut and spoil, then count what is left; ARGS="--seed 7 --kills 1000 --database postgres"
	$(BIN)/python -m tests.chaos $(ARGS)

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

lock:  ## needs `uv`; writes both requirements files anew, without index addresses
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate pyproject.toml -o requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --all-extras -c requirements.txt pyproject.toml -o requirements-dev.txt

clean:
	rm -rf .venv
