# Two commands are enough on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TORCH  ?= cpu
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
PIP    := $(BIN)/pip install --quiet --constraint constraints.txt
NAME   ?= alanine_dipeptide
ARGS   ?=

.PHONY: setup setup-deepspeed setup-graphs train test lint docs tables bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python >= 3.11 needed, got $$($(PYTHON) --version); call make with PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# The CPU build is a few hundred MB; the default Linux build brings gigabytes of CUDA packages.
ifeq ($(TORCH),cpu)
	$(PIP) "torch==$(TORCH_VERSION)+cpu" 2>/dev/null \
	  || PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu $(PIP) "torch==$(TORCH_VERSION)+cpu" 2>/dev/null \
	  || $(PIP) "torch==$(TORCH_VERSION)"
else
	$(PIP) "torch==$(TORCH_VERSION)"
endif
	$(PIP) --editable ".[full,dev]"
	@touch $(READY)

setup-deepspeed: $(READY)  ## DeepSpeed is a source distribution; it wants torch to be there first
	$(PIP) --no-build-isolation "deepspeed>=0.19,<0.20"

setup-graphs: $(READY)  ## compiles torch-cluster: about ten minutes on two cores
	$(PIP) setuptools wheel ninja
	$(PIP) --no-build-isolation "torch-cluster>=1.6.3"

train: $(READY)  ## the main job; e.g. make train NAME=seed1 ARGS="seed=1"
	$(BIN)/python jobs/train.py --name $(NAME) $(ARGS)

# Two processes, each with one thread (tests/conftest.py says what each gets).
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## the pages in build/site
	$(BIN)/mkdocs build --quiet --strict

tables: $(READY)  ## the tables of the documents, from the records and the settings
	$(BIN)/python docs/tables
	$(BIN)/python docs/settings.py

bench: $(READY)  ## seconds to minutes each; one JSON line per script
	$(BIN)/python benchmarks/force_field.py
	$(BIN)/python benchmarks/scaling.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
