# make demo    set up .venv and run the whole pipeline on the two data sets that need no download (into demo/)
# make test    set up .venv and run lint, types and all tests
# make verify  do dvc.lock, parameters, code, metrics, plots and reports in this folder belong together?
# make repro   the real thing: MNIST and CIFAR-10, downloaded or found in $XNORNET_DATA
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo test repro verify setup lock

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv .venv
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@python scripts/demo.py

test: setup
	ruff check .
	ruff format --check .
	mypy
	python -m pytest -n 2 --dist loadfile

repro: setup
	dvc repro

verify: setup
	@python scripts/verify.py

# Made with uv (https://docs.astral.sh/uv), for every platform and Python from 3.11 on.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock
