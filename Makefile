# The commands of this checkout. Each makes what it needs; nothing is installed outside of it.
PYTHON ?= python3
VENV := .venv/bin/python

# Another environment of the caller's must not mix with ours.
unexport PYTHONHOME
unexport PYTHONPATH
unexport VIRTUAL_ENV

# Half of every start would go into compiling again.
unexport PYTHONDONTWRITEBYTECODE

# Every tool's cache goes where all that we write goes.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.hookledger/cache/python
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.hookledger/cache/hypothesis

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo up down logs test lint bench bench-growth bench-page bench-lists bench-dispatch faults faults-mutants configuration manifests

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv from the lock file (done by the others when needed)
	@$(PYTHON) deploy/stack/bootstrap.py

demo: setup ## the main job, end to end, on servers of its own
	@$(VENV) -m deploy.demo

up: setup ## start the stack in the background; its URLs are in .hookledger/env
	@$(VENV) -m deploy.stack up

down: setup ## stop it; its data stays (make down WIPE=1 removes it)
	@$(VENV) -m deploy.stack down $(if $(WIPE),--wipe)

logs: setup ## follow the logs of the three services
	@$(VENV) -m deploy.stack logs -f

test: setup ## all tests, then the demo
	@$(VENV) -m deploy.stack.suite

lint: setup ## ruff, mypy --strict, import-linter
	@echo 'lint: ruff check' && $(VENV) -m ruff check .
	@echo 'lint: ruff format' && $(VENV) -m ruff format --check .
	@echo 'lint: mypy' && $(VENV) -m mypy
	@echo 'lint: import-linter' && .venv/bin/lint-imports --cache-dir .hookledger/cache/import-linter

configuration: setup ## write docs/configuration.md, docs/metrics.md, alerts for Kubernetes and the broker's users from the code
	@$(VENV) -m deploy.configuration
	@$(VENV) -m deploy.metrics
	@$(VENV) -m deploy.alerts
	@$(VENV) -m deploy.broker_users

manifests: setup ## render the overlays for Kubernetes to build/manifests
	@$(VENV) -m deploy.manifests

bench: setup ## all figures beside their ceilings and peers, on this machine (make bench QUICK=1 for a glance)
	@$(PYTHON) deploy/stack/bootstrap.py bench
	@$(VENV) -m bench $(if $(QUICK),--quick)

bench-growth: setup ## what a delivery costs with 100,000 endpoints and five million ledger rows
	@$(VENV) -m bench.growth $(if $(QUICK),--quick)

bench-page: setup ## write the figures of bench/results/latest.json into docs/performance.md
	@$(PYTHON) deploy/stack/bootstrap.py bench
	@$(VENV) -m bench.page

bench-lists: setup ## how long a page of each list takes, with ten thousand deliveries and with a million
	@$(VENV) -m bench.lists

bench-dispatch: setup ## claims, order, lateness of retries and fairness, beside what is asked (ONLY=claims for one)
	@$(VENV) -m bench.dispatch $(if $(QUICK),--quick) $(foreach part,$(ONLY),--only $(part))

faults: setup ## break everything while load runs (make faults SEED=7 ROUNDS=20)
	@$(VENV) -m tests.faults.campaign --seed $(or $(SEED),1) --rounds $(or $(ROUNDS),10)

faults-mutants: setup ## plant defects in a copy of the code, and show that the campaign finds each
	@$(VENV) -m tests.faults.mutants
