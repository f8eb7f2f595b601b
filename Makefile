# Every target sets up what it needs first: `make demo` works on a bare clone.
# Another interpreter for the set-up: make setup PYTHON=python3.11
PYTHON ?= python3
RUN = "$$($(PYTHON) tools/setup_env.py --print-python)"

.DEFAULT_GOAL := help
.PHONY: help setup test demo demo-table lint test-official

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

setup:  ## install everything into .venv (or use the active environment)
	@$(PYTHON) tools/setup_env.py

test: setup  ## run the whole test suite
	@$(RUN) -m pytest

demo: setup  ## run the whole method on small generated clips
	@$(RUN) demo/run_demo.py

demo-table: setup  ## run the demo with three seeds and the ceiling detector
	@$(RUN) demo/run_demo.py --seeds 0 1 2 --ceiling \
		--work-dir work_dirs/demo_table

lint: setup  ## check style with ruff
	@$(RUN) -m ruff check .

test-official:  ## run the suite with the official OpenMMLab packages
	@PYTHON=$(PYTHON) bash tools/test_official_stack.sh
