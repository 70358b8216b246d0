# The developer interface. Everything runs in .venv, which is remade when the lock changes.
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= 2
# A test that ignores its timeout (it hangs in native code) ends its worker with all stacks, and so the run.
HANG := -o faulthandler_timeout=660 -o faulthandler_exit_on_timeout=true --max-worker-restart 0

ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; \
	done)
endif

.PHONY: help install quickstart test test-all soak lint types bench gpu tables table invariances explore docs client lerobot lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

install: $(STAMP)  ## make .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found: install one, or name it: make install PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --system-certs --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: $(STAMP)  ## from the shipped robot clips to a verified encoder and a page to look at
	$(BIN)/python examples/quickstart.py

test: $(STAMP)  ## what every change must pass; JOBS=8 takes more processes than two
	$(BIN)/python -m pytest -m "not slow and not soak" --numprocesses $(JOBS) --dist loadfile --timeout 600 $(HANG)

test-all: $(STAMP)  ## the slow and the soak tests too
	$(BIN)/python -m pytest

soak: $(STAMP)  ## ten minutes of load on a server; ROBOSSL_SOAK_SECONDS=20 for a trial
	$(BIN)/python -m pytest -m soak

lint: $(STAMP)  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

bench: $(STAMP)  ## ratios of speed and memory
	$(BIN)/python benchmarks/run.py

gpu: $(STAMP)  ## all that needs a GPU, in ten minutes: tests, exact resume, throughput, kNN, ONNX; see docs/gpu.md
	$(BIN)/python benchmarks/gpu/run.py

tables: $(STAMP)  ## study: SimSiam's ablations on real frames; resumes
	$(BIN)/python studies/simsiam.py

table: $(STAMP)  ## study: every method for the same time; resumes
	$(BIN)/python studies/methods.py

invariances: $(STAMP)  ## study: which changes of the picture encoders ignore; resumes
	$(BIN)/python studies/invariances.py

explore: $(STAMP)  ## study: exploring agents and the loop compared; resumes
	$(BIN)/python studies/explore.py

docs: $(STAMP)  ## the site, into build/site/index.html; a dead link or a public name without docstring fails
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/site
	cp build/site/README.html build/site/index.html

client: $(STAMP)  ## the client's own wheel, for robots
	cd serving && $(CURDIR)/$(BIN)/python -m hatchling build -t wheel -d $(CURDIR)/dist

# Its environment is apart from .venv, because lerobot pins its packages. Its imports warn, so warnings are no errors.
PYTHON312 ?= python3.12
LEROBOT := .venv-lerobot
lerobot: $(LEROBOT)/.installed  ## tests of the plug-in for lerobot, in an environment of its own; PYTHON312=python3.12
	OMP_NUM_THREADS=1 $(LEROBOT)/bin/python -m pytest -W default tests/lerobot_plugin tests/envs/test_learning_curve.py

$(LEROBOT)/.installed: pyproject.toml lerobot_plugin/pyproject.toml
	test -x $(LEROBOT)/bin/pip || $(PYTHON312) -m venv --clear $(LEROBOT)
	$(LEROBOT)/bin/pip install --quiet --disable-pip-version-check --editable . --editable lerobot_plugin \
		pytest pytest-timeout hypothesis h5py 'stable-baselines3>=2.7'
	@touch $@

lock: $(STAMP)  ## resolve requirements.lock again
	$(BIN)/uv pip compile pyproject.toml --quiet --system-certs --upgrade --group dev --generate-hashes --universal --python-version 3.11 \
		--fork-strategy fewest --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--output-file requirements.lock

clean:  ## remove files of builds, tests and the quickstart; keep .venv
	rm -rf build dist quickstart .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
