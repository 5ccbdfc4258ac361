# make run: install, run the default study, write the report. make test: install, run every test.
# make bench: install, time the engines for components and for edges against slower ways.
VENV := .venv
PYTHON ?= python3
CORES ?= all
REPORT := results/report.html
BIN := $(VENV)/bin

.PHONY: run test bench lint docs clean

run: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES)
	@if [ ! -f $(REPORT) ] || [ -n "$$(find results -type f -newer $(REPORT) | head -n 1)" ]; then \
		$(BIN)/snakemake --report $(REPORT); \
	fi
	@echo "Report: $(CURDIR)/$(REPORT)"

test: $(VENV)/installed
	$(BIN)/python -m pytest

bench: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python bench/search.py
	PYTHONPATH=scripts $(BIN)/python bench/edges.py

lint: $(VENV)/installed
	$(BIN)/ruff check scripts tests docs bench && $(BIN)/ruff format --check scripts tests docs bench
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

docs: $(VENV)/installed
	$(BIN)/python docs/build_configuration.py

clean:
	rm -rf results/* benchmarks logs .snakemake

$(VENV)/installed: envs/requirements.txt envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements.txt -c envs/constraints.txt
	touch $@
