# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help demo test full coverage emulate lint format types layers docs bench check-python FORCE
SHELL := /bin/bash

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where torch's builds without CUDA live. Used when it can be reached; set it empty to leave it out.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
SETUP_FILES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/* csrc/*/*)
# The editable install remembers where each module was: when one has gone, install again.
MOVED := $(shell [ ! -f $(VENV)/.modules ] || while read -r file; do [ -e "$$file" ] || \
  { echo FORCE; break; }; done < $(VENV)/.modules)

help:
	@echo "make demo    set up, then compare techniques on the digits data and run the packed winner"
	@echo "make test    set up, then run the tests"
	@echo "make full    the tests, the slow ones included, and the share of lines that they run"
	@echo "make emulate the kernels of processors that this machine lacks (Debian's bochs and qemu)"
	@echo "make lint    ruff: rules and format        make format  apply them"
	@echo "make types   mypy --strict                 make layers  import-linter"
	@echo "make docs    the documentation, strict     make bench   the benchmarks"

# ---- set-up: a stamp stands for a finished install -------------------------------------------------

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "whit needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 2; }

$(BIN)/pip: | check-python
	@echo "-- creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Could not create $(VENV). On Debian or Ubuntu: apt-get install python3-venv"; exit 2; }

# $(call install,extras): pip with the pins, and torch's CPU index where it can be reached.
define install
	@echo "-- installing whit[$(1)] with the versions of constraints.txt (torch is large: minutes)"
	@index=; if [ -n "$(TORCH_INDEX)" ] && $(BIN)/python -c \
	  "import urllib.request as u; u.urlopen('$(TORCH_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	  then index="--extra-index-url $(TORCH_INDEX)"; fi; \
	  $(BIN)/python -m pip install --disable-pip-version-check -qq $$index \
	    -c constraints.txt -e '.[$(1)]'
	@find src -name '*.py' > $(VENV)/.modules
	@$(BIN)/python -c "from whit.runtime import native as n; \
	  print('-- C++ extension:', n.reason() or 'built, ' + ' '.join(n.cpu_features()))"
endef

$(VENV)/.installed-train: $(SETUP_FILES) $(MOVED) | $(BIN)/pip
	$(call install,train)
	@touch $@

$(VENV)/.installed-dev: $(SETUP_FILES) $(MOVED) | $(BIN)/pip
	$(call install,train$(,)dev)
	@touch $(VENV)/.installed-train $@

, := ,
FORCE:

# ---- the two commands of the README ---------------------------------------------------------------

demo: $(VENV)/.installed-train
	@echo "-- whit compare digits"
	@$(BIN)/whit compare digits --out whit-demo
	@echo "-- whit predict digits.whit digits-inputs.npy (no torch)"
	@$(BIN)/whit predict digits.whit digits-inputs.npy

test: $(VENV)/.installed-dev
	@echo "-- pytest on all cores"
	@$(BIN)/python -m pytest -n auto --dist worksteal --durations=20 --durations-min=5

# ---- checks ----------------------------------------------------------------------------------------

full: $(VENV)/.installed-dev coverage
	@echo "-- the slow tests"
	@$(BIN)/python -m pytest -m slow  # one process: they share folders of builds

# Counting lines makes the tests take half as long again, so CI leaves it to `make full`.
coverage: $(VENV)/.installed-dev
	@echo "-- pytest on all cores, with the share of lines that the tests run"
	@mkdir -p build
	@$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=
	@$(BIN)/python -m coverage report --format=total --fail-under=0 | sed 's/$$/ % of the lines were run/'
	@$(BIN)/python -m coverage report --skip-covered --sort=cover > build/coverage.txt || \
	  { head -30 build/coverage.txt; exit 1; }

emulate: $(VENV)/.installed-dev
	@echo "-- kernels of AVX-512 in Bochs and of NEON in QEMU"
	@$(BIN)/python -m pytest -m "" -rs tests/native/test_emulation.py

lint: $(VENV)/.installed-dev
	@echo "-- ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	@echo "-- mypy"
	@$(BIN)/mypy

layers: $(VENV)/.installed-dev
	@echo "-- import-linter"
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.installed-dev
	@echo "-- mkdocs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed-train
	@found=; for file in benchmarks/*.py; do [ -e "$$file" ] || continue; found=1; \
	  echo "-- $$file"; $(BIN)/python "$$file" || exit 1; done; \
	  [ -n "$$found" ] || { echo "there is no benchmark in benchmarks/"; exit 2; }
