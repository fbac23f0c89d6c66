# make plan | sweep | report | study | test | check | bench | stress; each installs what it needs into .venv first.
GRID  ?= grids/default.toml
PYTHON ?= python3
BIN   := .venv/bin

# Values reach the shell as variables of its own, and as they were typed: quotes and dollars in a path stay what they are.
override GRID := $(value GRID)
override STORE := $(value STORE)
override SEEDS := $(value SEEDS)
override ADDRESS := $(value ADDRESS)
override STORES := $(value STORES)
export GRID STORE SEEDS ADDRESS STORES
options = $(if $(STORE),--store "$$STORE") $(if $(SEEDS),--seeds "$$SEEDS")

.PHONY: sweep plan report study test check bench stress

sweep: .venv/installed
	@$(BIN)/normorder sweep "$$GRID" $(options) $(if $(ADDRESS),--address "$$ADDRESS")

plan: .venv/installed
	@$(BIN)/normorder plan "$$GRID" $(options) $(if $(ADDRESS),--address "$$ADDRESS")

report: .venv/installed
	@$(BIN)/normorder report "$$GRID" $(options)

# The reference study: its reports from the stores that are in git; with STORES=FOLDER all of it is trained into FOLDER first.
# A grid whose store is not whole is left out.
study: .venv/installed
	@set -e; whole=; stores="$${STORES:-results/published}"; \
	for grid in results/published/*.toml; do \
		name=$$(basename "$$grid" .toml); \
		test -z "$$STORES" || $(BIN)/normorder sweep "$$grid" --store "$$stores/$$name" $(if $(ADDRESS),--address "$$ADDRESS"); \
		$(BIN)/normorder validate "$$stores/$$name" "$$grid" || { echo "$$name is left out"; continue; }; \
		$(BIN)/normorder report "$$grid" --store "$$stores/$$name" --out "reports/build/study/$$name"; \
		whole="$$whole $$grid"; \
	done; \
	$(BIN)/normorder ledger $$whole --stores "$$stores" --out reports/build/study

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python tests/bench/bench.py $(if $(QUICK),--quick)

stress: .venv/installed
	$(BIN)/python tests/faults/stress.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
