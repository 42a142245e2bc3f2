# The tools of .venv where it exists, otherwise those on the path.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS := 1

.PHONY: check test learn bench format

check:
	ruff check
	ruff format --check
	mypy

test:
	./run.sh test

learn:
	python -m pytest -m learning

# One JSON document on standard output; about a minute on one core.
bench:
	@PYTHONPATH=src NUMBA_NUM_THREADS=1 python benchmarks/speed/throughput.py

format:
	ruff check --fix
	ruff format
