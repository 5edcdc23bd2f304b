# The two commands that matter: `make reproduce` and `make test`. `make help` lists the rest.
PYTHON ?= python3
PRESET ?= quick
BIN := .venv/bin
# A process for each core, each with a part of the files and one thread.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile
STRICT_NOTEBOOKS := $(wildcard $(addprefix notebooks/,$(addsuffix _*.ipynb,00 01 02 03 09 10)))

# Where HOME cannot be written, caches go to the build folder.
ifneq ($(shell test -w "$$HOME" && echo writable),writable)
export HOME := $(CURDIR)/build/home
$(shell mkdir -p "$(HOME)")
endif

.PHONY: help reproduce test test-cluster docs book student slides lab lint format clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "maelib needs Python 3.11, 3.12 or 3.13; name one with PYTHON=/path/to/python3.12")'
	@echo "setting up .venv (PyTorch is large: a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

reproduce: .venv/.installed ## make what is missing at PRESET (quick | laptop | short | paper); ARGS=-n shows it
	@$(BIN)/python -m maelib.workflow.reproduce --preset $(PRESET) $(ARGS)

test: lint ## lint, run every test, and check the committed notebooks' outputs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs $(PARALLEL)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -p no:jaxtyping -o addopts= --nbval --nbval-current-env $(STRICT_NOTEBOOKS)

test-cluster: .venv/.installed ## run the SLURM profile on a SLURM of one node (root; slurm-wlm, munge)
	$(BIN)/python -m pytest -q -m cluster tests/test_cluster.py

docs: .venv/.installed ## write the generated tables of README.md and docs/ again
	$(BIN)/cog -r -I docs --verbosity=1 README.md docs/*.md

book: .venv/.installed ## build the site in build/book/site from the notebooks and docs
	$(BIN)/python book/build.py
	@echo "open build/book/site/index.html"

student: .venv/.installed ## write the notebooks without their solutions to build/student
	$(BIN)/python docs/course.py student

slides: .venv/.installed ## write the slides of four lectures to build/slides
	$(BIN)/python docs/course.py slides

lab: .venv/.installed ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

lint: .venv/.installed ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## delete what make reproduce and make test leave behind, the runs in runs/ excepted
	rm -rf build .snakemake .pytest_cache .ruff_cache .hypothesis
