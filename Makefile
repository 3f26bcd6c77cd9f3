# Each target does its own set-up, and none where nothing is missing.
.DEFAULT_GOAL := help
.PHONY: help run test check check-format check-lint check-types check-imports check-shell \
        check-protos protos protos-check bench lab soak guest clean setup-run setup-test

PYTHON := .venv/bin/python
# What `make test` runs, e.g. TESTS=tests/conformance PYTEST_FLAGS=-x
TESTS ?= tests
PYTEST_FLAGS ?=
# Test files run beside each other; most of a real guest's test is waiting for it. Those with
# few and long tests are not left for the end.
WORKERS ?= 2
SHELL_SCRIPTS := .ci/run deploy/setup/prepare deploy/tls/issue

help: ## This list
	@grep -hE '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | sed -E 's/:.* ## /\t/' | expand -t 16

run: setup-run ## A guest on a daemon of its own, until Ctrl-C; ONCE=1: until its console speaks
	@$(PYTHON) -m deploy.demo $(if $(filter-out 0,$(ONCE)),--once)

test: setup-test ## All tests, those on real QEMU included
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS) $(PYTEST_FLAGS)

check: check-format check-lint check-types check-imports check-shell check-protos protos-check ## Everything that needs no run: format, lint, types, import rules, contract

check-format: setup-test
	@.venv/bin/ruff format --check

check-lint: setup-test
	@.venv/bin/ruff check

check-types: setup-test
	@.venv/bin/mypy

check-imports: setup-test
	@.venv/bin/lint-imports --no-logo --no-cache

check-shell: setup-test
	@shellcheck --external-sources $(SHELL_SCRIPTS)

check-protos: setup-test
	@$(PYTHON) protos/check.py lint
	@$(PYTHON) protos/check.py format

protos: setup-test ## Python stubs and docs/api from the contract
	@$(PYTHON) protos/generate.py
	@$(PYTHON) protos/reference.py

protos-check: setup-test ## No stale stubs or docs/api, no breaking change since the last release
	@$(PYTHON) protos/generate.py --check
	@$(PYTHON) protos/reference.py --check
	@$(PYTHON) protos/check.py breaking

bench: setup-test ## Latencies, as ratios to what they stand on
	@$(PYTHON) -m tests.bench

lab: setup-test ## Migrations between two real hosts, in network namespaces, the long ones too
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile -m "" tests/lab $(PYTEST_FLAGS)

soak: setup-test ## Random verbs and kills for a long while
	@$(PYTHON) -m tests.soak
	@VIRTRPC_VOLUME_ROUNDS=200 $(PYTHON) -m pytest -q tests/conformance/volume/test_guest_data.py -k rounds --timeout=600
	@$(PYTHON) -m pytest -q -m long tests/conformance tests/libvirt tests/model tests/network --timeout=600

guest: setup-run ## The test guest in .cache/guest

clean: ## Removes what was made here; installed packages stay
	rm -rf .venv .cache .run build dist *.egg-info clients/python/*.egg-info
	rm -rf .mypy_cache .pytest_cache .hypothesis clients/node/dist clients/node/src/gen
	find . \( -name __pycache__ -o -name node_modules -o -name .ruff_cache \) -type d -prune -exec rm -rf {} +

setup-run:
	@deploy/setup/prepare run

setup-test:
	@deploy/setup/prepare test
