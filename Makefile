# `make` alone lists the verbs. PYTHON=... and VENV=... choose another interpreter and environment.
PYTHON ?= $(shell scripts/pythons default)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports check bench soak format clean

help: ## this list
	@echo "Windlass: background jobs for Python"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## the photo application, two workers and some trouble (KEEP=1 to use it in a browser, PHOTOS=dir)
	@$(BIN)/python -m examples.photo_app.demo $(if $(KEEP),--keep) $(if $(PHOTOS),--photos "$(PHOTOS)")

test: $(VENV)/.dev ## all tests (ARGS="-k name" to choose)
	$(BIN)/python -m pytest -n 3 --dist loadgroup $(ARGS)

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## who may import whom
	$(BIN)/lint-imports --no-cache

check: lint types imports test ## everything above

bench: $(VENV)/.dev ## speed, latency, memory, beside a peer (QUICK=1: does it work; benchmarks/README.md)
	$(BIN)/python -m benchmarks.run $(if $(QUICK),--quick) $(ARGS)

soak: $(VENV)/.dev ## the hours-long proofs, with their full figures
	WINDLASS_PROOF=soak $(BIN)/python -m pytest -m "soak or not soak" --timeout 0 $(ARGS)

clean: ## forget the environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A copy of the package (`pip install .`) would hide what is edited here: then it is linked again.
ifneq ($(wildcard $(VENV)/lib/python*/site-packages/windlass/__init__.py),)
$(shell rm -f $(VENV)/.demo $(VENV)/.dev)
endif

# What is installed depends on pyproject.toml alone: the package itself is linked, not copied.
$(VENV)/bin/python:
	@scripts/venv "$(PYTHON)" $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Windlass and what its example needs into $(VENV)"
	@$(PIP) install -e ".[examples]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Windlass and its development tools into $(VENV)"
	@$(PIP) install -e ".[dev]"
	@touch $@ $(VENV)/.demo
