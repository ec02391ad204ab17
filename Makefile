# `make setup` puts the environment in .venv; every other target does it by itself when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-all lint benchmark benchmark-online benchmark-large peer peer-online peer-language docs lock clean

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

# Also what tests/slow.py lists, which takes some minutes more, with envpool, whose 280 MB are not in the lock.
test-all: setup lint
	$(BIN)/uv pip install --quiet --python $(BIN)/python "envpool>=1.2.5"
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m ""

# Needs a quiet machine for about a quarter of an hour: beside other work the numbers are wrong.
benchmark: setup peer
	$(BIN)/python benchmarks/run.py --peer-python peer/bin/python --markdown docs/benchmarks.md

# Learning online beside its peers, and tree search; quiet for five minutes.
benchmark-online: setup peer-online
	$(BIN)/python benchmarks/online_updates.py --peer-python peer-online/bin/python --markdown docs/benchmarks.md

# Language models beside TRL and transformers, Diffusion Policy's U-Net beside PyTorch; quiet for a quarter of an hour.
benchmark-large: setup peer-language
	$(BIN)/python benchmarks/language_training.py --peer-python peer-language/bin/python --markdown docs/benchmarks.md
	$(BIN)/python benchmarks/language_generation.py --peer-python peer-language/bin/python
	$(BIN)/python benchmarks/diffusion_updates.py --peer-python peer-language/bin/python --markdown docs/benchmarks.md

peer-online: peer-online/ready

# An environment of its own: d3rlpy, which is in the other one, needs an old Gymnasium.
peer-online/ready: benchmarks/peer_online.txt | setup
	test -x peer-online/bin/python || $(BIN)/uv venv --quiet peer-online
	$(BIN)/uv pip install --quiet --python peer-online/bin/python -r benchmarks/peer_online.txt
	touch $@

peer-language: peer-language/ready

peer-language/ready: benchmarks/peer_language.txt | setup
	test -x peer-language/bin/python || $(BIN)/uv venv --quiet peer-language
	$(BIN)/uv pip install --quiet --python peer-language/bin/python -r benchmarks/peer_language.txt
	touch $@

# What policylab is timed against, in an environment of its own. Set UV_TORCH_BACKEND=cpu for the build of torch without CUDA.
peer: peer/ready

peer/ready: benchmarks/peer.txt | setup
	test -x peer/bin/python || $(BIN)/uv venv --quiet peer
	$(BIN)/uv pip install --quiet --python peer/bin/python -r benchmarks/peer.txt
	touch $@

docs: setup
	$(BIN)/python docs/build.py

lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 --group dev --extra data --extra robotics --extra report --extra search --extra video --extra language --extra remote --extra serve --extra tensorboard --extra wandb \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv peer peer-online runs dist site
