# The Deep Learning Atlas. `make book` builds it, `make test` tests it; both set up what they need.

PROFILE ?= cpu
CLUSTER ?=
JOBS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

# Where things are installed: ENV=<folder> or ENV=active, an environment that is there and may have its own torch;
# else the conda environment of environment.yml when it is activated; else .venv, made when it is not there.
ifeq ($(ENV),active)
PREFIX := $(shell python -c 'import sys; print(sys.prefix)')
KEEP := --keep-torch
else ifneq ($(ENV),)
PREFIX := $(abspath $(ENV))
KEEP := --keep-torch
else ifeq ($(CONDA_DEFAULT_ENV),dlatlas)
PREFIX := $(CONDA_PREFIX)
else
PREFIX := $(CURDIR)/.venv
endif

BIN := $(PREFIX)/bin
export PATH := $(BIN):$(PATH)
# Tests run side by side, one thread each, as the chapters do.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS)

.NOTPARALLEL:
.PHONY: help assignments book chapter lab test test-style test-units test-notebooks test-site bench test-cluster clean environment

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|cpu|gpu  JOBS=chapters side by side  ENV=an environment that has torch  CLUSTER=slurm"

book: environment  ## run what changed and build the site
	@$(BIN)/dlatlas build --profile $(PROFILE) --jobs $(JOBS) $(if $(CLUSTER),--cluster $(CLUSTER))

chapter: environment  ## run and build one chapter: make chapter C=theory/grokking
	@$(BIN)/dlatlas chapter $(if $(C),$(C),$(error say which one: make chapter C=theory/grokking)) \
		--profile $(PROFILE) $(if $(CLUSTER),--cluster $(CLUSTER))

assignments: environment  ## make the assignments of book/course.yml, and test them
	$(BIN)/dlatlas assignments make
	$(BIN)/dlatlas assignments check

lab: environment  ## open the chapters as notebooks in JupyterLab
	JUPYTER_CONFIG_PATH=$(CURDIR)/workflow/jupyter $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

test: test-style test-units test-notebooks test-site  ## test everything

test-style: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

test-units: environment
	$(PYTEST) --dist worksteal -m "not browser and not cluster" tests

test-notebooks: environment
	$(BIN)/dlatlas nbval
	$(PYTEST) --dist loadfile --nbval-lax --nbval-current-env _build/smoke/nbval

test-site: environment
	$(BIN)/dlatlas build --profile smoke --jobs $(JOBS)
	$(BIN)/python -m pytest -m browser tests

bench: environment  ## measure against other libraries, loops over seeds and goals
	@python3 workflow/environment.py $(KEEP) --extra bench "$(PREFIX)"
	$(BIN)/python -m pytest --benchmark-quiet -p no:xdist -o python_files='bench_*.py' tests/benchmarks

test-cluster: environment  ## run two chapters through Slurm on this machine (root on Debian)
	$(BIN)/python -m pytest -m cluster -s tests/cluster

clean:  ## remove what was built; the environment stays
	rm -rf _build .snakemake

environment:
	@python3 workflow/environment.py $(KEEP) "$(PREFIX)"
