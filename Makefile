# keadb: a highly available PostgreSQL for Kea DHCP. `make` alone lists what there is.
# A fresh machine needs python3 (3.11 or newer) with venv, make and git; `make setup` brings the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements.sha256
LAB ?= lab
OUT ?= build/render
STACK ?= us1

.PHONY: help setup venv packages toolchain up down unit plugin test lab-test lint lock render clean
.DEFAULT_GOAL := help

help: ## list the targets
	@echo "keadb, highly available PostgreSQL for Kea DHCP:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: venv packages toolchain ## Python packages, system packages, Pulumi CLI and plugin; quick to repeat

venv:
	@PYTHON="$(PYTHON)" sh toolchain/venv.sh

packages: venv
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m lab.packages; \
	else \
	    echo "setup: not root on Debian or Ubuntu: the lab's system packages are not looked at"; \
	fi

toolchain: venv
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m toolchain setup

up: setup ## a whole site on this machine, from nothing to the status table (root)
	bin/keadb lab up
	bin/keadb up --stack $(LAB) --yes
	bin/keadb lab load
	bin/keadb status --stack $(LAB)

down: venv ## take the lab away; nothing is left
	bin/keadb lab down

unit: venv ## static checks, unit and program tests: no root, no network, no CLI; not those that go through every step
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -n 4 --dist worksteal -m "not thorough" tests/unit tests/program

plugin: setup ## what needs the Pulumi CLI: conformance of the command plugin (KEADB_COMMAND_PLUGIN names another one)
	$(BIN)/python -m pytest -q tests/plugin tests/cli

test: setup unit ## everything; says what it skipped and why
	$(BIN)/python -m pytest -q -n 4 --dist worksteal -m thorough tests/unit tests/program
	$(BIN)/python -m pytest -q tests/plugin tests/cli
	@sh toolchain/lab-tests.sh

lint: venv ## ruff, mypy, shellcheck, yamllint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	git ls-files -z '*.sh' bin/keadb .ci/run | xargs -0r $(BIN)/shellcheck
	git ls-files -z '*.yaml' '*.yml' | xargs -0r $(BIN)/yamllint --strict -d '{extends: default, rules: {document-start: disable, line-length: disable}}'

lock: venv ## requirements.txt anew from requirements.in
	@sh toolchain/lock.sh

render: venv ## every file of every host of STACK=us1 into OUT=build/render
	bin/keadb render --stack $(STACK) --out $(OUT)

clean: ## what was made in the checkout; the cache and labs stay
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
