# Each goal sets itself up in $(VENV): a fresh machine needs Python 3.10+, pip and make.
#   make test PYTHON=python3.12      another interpreter
#   make test PIP_FLAGS=             pip's own progress output

VENV ?= .venv
PIP_FLAGS ?= -q
BIN := $(VENV)/bin
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

# A name on the PATH is not enough: version managers leave stubs that only fail.
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	"$$name" -c '$(OLD_ENOUGH)' >/dev/null 2>&1 && { echo "$$name"; break; }; done)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart search test pytest lint format clean distclean

help:
	@echo "make quickstart  find, retrain, route and compare adaptive tickets on real digits"
	@echo "make search      an NNI experiment over adaptive tickets, with its web page"
	@echo "make test        lint, types and the whole test suite"
	@echo "make pytest      the test suite alone (ARGS=... go to pytest)"
	@echo "make lint        ruff and mypy"
	@echo "make format      ruff's formatter and safe fixes"
	@echo "make clean       remove caches and builds (distclean: $(VENV) too)"

quickstart: $(VENV)/.installed-quickstart
	$(BIN)/rtl-plugin quickstart $(ARGS)

search: $(VENV)/.installed-search
	$(BIN)/python examples/nni_search/search.py $(ARGS)

test: lint
	@$(MAKE) --no-print-directory pytest

# One thread a worker: two workers with a thread pool each are slower than one on two cores.
pytest: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# Made only after the virtual environment works, so a creation that failed half-way is tried again.
$(VENV)/.created:
	@if [ -z "$(PYTHON)" ]; then \
		echo "rtl-plugin needs Python 3.10 or newer; python3 is $$(python3 -V 2>&1 | tail -1)," >&2; \
		echo "and no python3.10 to python3.14 runs. Name one: make PYTHON=/path/to/python" >&2; exit 1; fi
	@if ! "$(PYTHON)" -c '$(OLD_ENOUGH)'; then \
		echo "rtl-plugin needs Python 3.10 or newer; PYTHON=$(PYTHON) is" \
			"$$("$(PYTHON)" -V 2>&1 | tail -1)" >&2; exit 1; fi
	@if [ "$(origin PYTHON)" = file ] && [ "$(PYTHON)" != python3 ]; then \
		echo ">> taking $(PYTHON): python3 is $$(python3 -V 2>&1 | tail -1)"; fi
	@if $(BIN)/python -c '$(OLD_ENOUGH)' 2>/dev/null && $(BIN)/python -m pip -V >/dev/null 2>&1; \
	then echo ">> using the virtual environment that is in $(VENV)"; \
	elif "$(PYTHON)" -c 'import ensurepip' 2>/dev/null; \
	then echo ">> creating $(VENV) with $$("$(PYTHON)" -V)"; "$(PYTHON)" -m venv --clear $(VENV); \
	else echo ">> creating $(VENV) with $$("$(PYTHON)" -V) and its pip (ensurepip is missing)"; \
		"$(PYTHON)" -m venv --clear --without-pip $(VENV) && \
		"$(PYTHON)" -m pip --python $(BIN)/python install $(PIP_FLAGS) pip; fi
	@$(BIN)/python -m pip install $(PIP_FLAGS) 'pip>=22.3'
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.created
	@echo ">> installing rtl-plugin[$*] into $(VENV)" \
		"(the first time this downloads PyTorch: minutes, and on Linux up to 3 GB)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[$*]'
	@touch $@
