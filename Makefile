# lading: `make demo` shows the whole job, `make test` proves it. Everything is installed into .venv in this checkout.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PYTEST_ARGS ?=

.PHONY: help install demo test test-tools lint bench soak clean

help:
	@echo "make install   lading into .venv"
	@echo "make demo      from a Dockerfile to a prediction over HTTP (root)"
	@echo "make test      lint and the whole suite (root)"
	@echo "make lint      ruff and mypy"
	@echo "make bench     lading beside the container engines this machine has; writes BENCHMARKS.md (root)"
	@echo "make soak      the long repeated runs that make test leaves out (root)"
	@echo "make clean     remove .venv and caches; says how to remove images and containers"

install: .venv/.installed

.venv/.installed: pyproject.toml
	@bash examples/lib/venv.sh "$(PYTHON)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@$(BIN)/python -m compileall -q src
	@touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

demo: install
	@bash examples/demo.sh

test-tools: .venv/.tested
	@bash examples/lib/packages.sh mmdebstrap=mmdebstrap busybox=busybox-static ip=iproute2 nft=nftables newuidmap=uidmap pasta=passt \
		slirp4netns=slirp4netns

lint: .venv/.tested
	$(BIN)/ruff check src tests bench examples
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/mypy
	$(BIN)/mypy bench

test: test-tools lint
	LADING_TEST_LEFTOVERS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: install
	@bash examples/lib/packages.sh busybox=busybox-static
	$(BIN)/python -m bench $(BENCH_ARGS)

soak: test-tools
	$(BIN)/python -m pytest -m soak

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist src/*.egg-info
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Containers and images stay. 'lading system prune -a' before this removes them; README.md tells the rest."
