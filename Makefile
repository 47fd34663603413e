# `make demo` and `make test` install what they need into .venv and run; nothing else is assumed but Python 3.11 and make.

PYTHON ?= python3.11
CORES ?= 2
BIN := .venv/bin

.PHONY: demo test faults cluster lint install clean

demo: install
	$(BIN)/snakemake --cores $(CORES) --set-threads classifier=$(CORES) pretrain=$(CORES)
	@echo
	@$(BIN)/python -m privimage.reporting.summary results/digits/internal/summary.csv
	@echo
	@echo "To show to others:  results/digits/report.html"
	@echo "For you alone:      results/digits/internal/report.html"

test: install
	$(BIN)/python -m pytest -n $(CORES)

# All faults: kills at every write, full disks, damaged files; half an hour. FAULTS_SEED=n repeats a run.
faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow or not slow' tests/faults

# On a real Slurm of two nodes, brought up here for it and taken down again: root and Debian; a quarter of an hour.
cluster: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slurm and (slow or not slow)' tests/cluster

lint: install
	$(BIN)/ruff check privimage tests benchmarks
	$(BIN)/ruff format --check privimage tests benchmarks
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .snakemake
