# Needs Python 3.11 or newer and make; everything else goes into .venv.

# Override with `make PYTHON=…`: the interpreter that .venv is made with.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && exit; done)
VENV = .venv
BIN = $(VENV)/bin
READY = $(VENV)/ready

ARGS =
# One more than there are cores: many tests wait for a lease or a deadline.
WORKERS = $(shell $(BIN)/python -c "import os; print(min(os.cpu_count() + 1, 4))")
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

.PHONY: dev
dev: $(READY) ## run everything here: make dev ARGS="--port 0"
	@exec $(BIN)/chatd dev $(ARGS)

.PHONY: test
test: $(READY) ## run every test: make test ARGS="tests/api -x"
	$(PYTEST) $(ARGS)

.PHONY: check
check: $(READY) ## lint, format, types, layers and house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py
	$(BIN)/pyright

.PHONY: format
format: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(READY) ## measure: see bench/README.md
	$(BIN)/python -m bench $(ARGS)

# CHATD_WEATHER_SEED=… replays a night; CHATD_WEATHER_ROUNDS=… makes it longer.
.PHONY: weather
weather: $(READY) ## every moment of a turn in every weather: make weather ARGS="-k Redis"
	CHATD_WEATHER=all CHATD_MACHINE_SEEDS=200 $(BIN)/python -m pytest tests/weather tests/machine $(ARGS)

.PHONY: soak
soak: $(READY) ## a fleet at capacity with faults: make soak ARGS="--minutes 5 --seed 1"
	$(BIN)/python -m bench.soak $(ARGS)

# The part of the tests that is skipped otherwise: about seven minutes.
.PHONY: tokens
tokens: $(READY) ## one login in 50 processes, in every trouble
	CHATD_FLEET_PROCESSES=50 CHATD_FLEET_TURNS=20 CHATD_FLEET_SECONDS=60 CHATD_FLEET_LIFETIME=2 \
		CHATD_FLEET_TROUBLE=true $(BIN)/python -m pytest -s tests/credentials/test_fleet.py $(ARGS)

# The whole environment, and of it what the image needs and what builds it. Versions stay unless they must move, or
# `make lock ARGS=--upgrade`.
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock" $(ARGS)

.PHONY: lock
lock: ## write the lock files again (needs uv)
	$(LOCK) --all-extras pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml -c requirements.lock -o docker/requirements.lock
	grep '^hatchling==' requirements.lock | cut -d' ' -f1 \
		| $(LOCK) - -c requirements.lock -o docker/build.lock

.PHONY: install
install: $(READY) ## only make .venv

.PHONY: clean
clean: ## remove .venv and caches; .chatd, where `make dev` keeps its data, stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The project itself is installed as a link to this folder, so only its metadata can go stale.
$(READY): pyproject.toml $(VENV)/locked
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/locked: requirements.lock | $(BIN)/pip
	@echo "Installing the locked dependencies into $(VENV) …"
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	@touch $@

# pip is the last thing that comes into a new environment.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "chatd needs Python 3.11 or newer with venv" \
		"(on Debian and Ubuntu: apt install python3 python3-venv), or make PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
