# `make setup` puts the environment in .venv; every other target does it by itself when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint benchmark docs lock clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: setup
	rm -rf runs/demo
	$(BIN)/policylab solve --task pointmaze/umaze --dataset mixed --out runs/demo

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ty check src

test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

benchmark: setup
	$(BIN)/python benchmarks/run.py

docs: setup
	$(BIN)/python docs/build.py

lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 --group dev --extra data --extra robotics --extra report --extra search --extra tensorboard --extra wandb \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv runs dist site
