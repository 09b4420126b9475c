# Everything runs in .venv, which each target creates if it is missing; the lowest versions that
# pyproject.toml allows have an environment of their own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test test-slow test-lowest test-wheel soak check format docs bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# the package and the demo's baselines to run it, all dependencies to develop it
$(BIN)/lis2: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[baselines]"
	@touch $@

$(VENV)/dev: $(BIN)/lis2
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(BIN)/lis2 ## train on the built-in image and plot the result
	@rm -rf runs/demo
	$(BIN)/lis2 fit --config configs/quickstart.yaml --run_name demo
	$(BIN)/lis2 baseline --config runs/demo

# each worker takes one half in its order, so that what the tests of a file share is made once
test: $(VENV)/dev ## run the quick tests
	$(PYTEST) -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/dev ## run the slow tests
	$(PYTEST) -n 2 --dist loadgroup -m slow

# bounds.txt pins each package of pyproject.toml to the version after its >=; the server of the
# oldest mlflow, which the tests start, does not import beside SQLAlchemy 2.1
$(LOWEST)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	grep -oE '"[A-Za-z0-9-]+(\[[a-z,]+\])?>=[0-9.]+' pyproject.toml \
		| sed -E 's/"([^[>]+).*>=/\1==/' | sort -u > $(LOWEST)/bounds.txt
	echo 'sqlalchemy<2.1' >> $(LOWEST)/bounds.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/bounds.txt --editable ".[test]"
	@touch $@

# the page on the configuration lists the classes of the torch in constraints.txt;
# only the long tests use what the trackers deliver to
test-lowest: $(LOWEST)/ready ## run the quick tests with the lowest versions allowed
	$(LOWEST)/bin/python -m pytest -n 2 -m "not slow" \
		--deselect tests/config/test_reference.py::test_the_page_is_what_would_be_written_now
	$(LOWEST)/bin/python -m pytest -n 2 -m slow tests/trackers

test-wheel: ## install the wheel alone in clean environments, and train the demo
	$(PYTHON) tests/wheel.py

soak: $(VENV)/dev ## kill runs at random moments and resume them; many configurations; map 10^9 pixels
	LIS2_EXAMPLES=1000 $(PYTEST) -m slow tests/config/test_fuzz.py
	LIS2_KILLS=200 $(PYTEST) -s -m slow -k many_killed_runs tests/faults
	LIS2_PIXELS=1e9 $(PYTEST) -s -m slow -k memory_of_a_large_map tests/inference

check: $(VENV)/dev ## check format, lint, types, layers, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/dev ## format the code and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev ## build the documentation
	$(BIN)/python -m sphinx -n -W --keep-going docs docs/_build

bench: $(VENV)/dev ## run every benchmark and print one table
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python benchmarks/run.py

clean: ## remove what the other targets created, except runs
	rm -rf $(VENV) $(LOWEST) docs/_build .mypy_cache .ruff_cache .pytest_cache
