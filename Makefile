# The tools of .venv where it exists, otherwise those on the path.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS := 1

.PHONY: check check-statistics test learn bench bench-assignment bench-decision bench-devices bench-seac format

check:
	ruff check
	ruff format --check
	mypy

# reports.statistics beside rliable, in an environment of its own (tests/rliable/requirements.txt).
check-statistics:
	test -x .venv-rliable/bin/python || python -m venv .venv-rliable
	.venv-rliable/bin/pip install --quiet -r tests/rliable/requirements.txt
	.venv-rliable/bin/python -m pytest tests/rliable

test:
	./run.sh test

learn:
	python -m pytest -m learning

# One JSON document on standard output; about four minutes on one core.
bench:
	@PYTHONPATH=src NUMBA_NUM_THREADS=1 python benchmarks/speed/throughput.py

# The assignment solvers side by side: JSON and plots in OUT; about ten minutes on one core. ARGS=--cvxpy adds CVXPY.
OUT ?= results/bench
bench-assignment:
	@python benchmarks/speed/assignment.py $(OUT) $(ARGS)

# Time of one decision from (10, 5) to (1000, 500), network and LP apart: JSON, table and plot in OUT; a minute.
bench-decision:
	@python benchmarks/speed/decision_time.py $(OUT) $(ARGS)

# Training of every algorithm on the processor and on the GPU: JSON on standard output; three minutes.
bench-devices:
	@python benchmarks/speed/devices.py $(ARGS)

# Memory of SEAC's training against the number of agents: JSON and table in OUT; half a minute.
bench-seac:
	@python benchmarks/speed/seac_memory.py $(OUT) $(ARGS)

format:
	ruff check --fix
	ruff format
