# Everything a person does with a clone of this project. `make` alone lists the targets.
# Nothing is installed outside .venv, except Chromium for the browser tests (as root on Debian; else you are asked to).

SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
MODEL := smollm2-135m-instruct
EMBEDDER := all-minilm-l6-v2
WORLD := cached_features/smollm2-135m
CODE := explorer app tests benchmarks tools
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --use-pep517 --constraint constraints.txt
export HOME ?= $(CURDIR)/.home
export PYTHONUTF8 := 1

.PHONY: help app model test unit browser lint format bench world report screenshots chromium clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

app: model ## Install what is missing, fetch the model once, and open the app on the bundled world
	@$(BIN)/persona-explorer app

model: $(VENV)/.installed
	@$(BIN)/persona-explorer fetch $(MODEL) >/dev/null
	@$(BIN)/persona-explorer fetch $(EMBEDDER) >/dev/null

test: $(VENV)/.installed-dev model lint unit browser ## Everything that CI runs: format, lint, types, unit, real-model and browser tests

# Two workers and one thread each: more threads only fight over two cores.
unit: $(VENV)/.installed-dev model
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --ignore=tests/browser -n 2 --dist worksteal $(ARGS)

# Apart and one at a time: each drives a server and a browser, and waits for what a person would wait for.
# What failed is run once more: a browser on a busy machine may miss a beat, and what fails twice has failed.
browser: $(VENV)/.installed-dev model
	chromium="$$(tools/ensure_chromium.sh)" && export PERSONA_EXPLORER_CHROMIUM="$$chromium" && \
	{ $(BIN)/python -m pytest tests/browser $(ARGS) || \
	$(BIN)/python -m pytest tests/browser --last-failed --last-failed-no-failures none $(ARGS); }

lint: $(VENV)/.installed-dev ## Check format, lint and types, as pre-commit does
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/pyright

format: $(VENV)/.installed-dev ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/.installed-dev model ## Measure speed and memory: benchmarks/results.json and RESULTS.md
	chromium="$$(tools/ensure_chromium.sh)" && PERSONA_EXPLORER_CHROMIUM="$$chromium" $(BIN)/python -m benchmarks $(PARTS)
	$(BIN)/python -m tools.readme_figures

world: model ## Make the bundled world anew from its recipe (hours; resumable)
	$(BIN)/persona-explorer make $(WORLD)/recipe.toml

report: model ## Recompute report.json and REPORT.md of the bundled world
	$(BIN)/persona-explorer report $(WORLD)
	$(BIN)/python -m tools.readme_figures

screenshots: $(VENV)/.installed-dev model ## Take the screenshots in docs/ from the real app
	chromium="$$(tools/ensure_chromium.sh)" && PERSONA_EXPLORER_CHROMIUM="$$chromium" $(BIN)/python -m tools.screenshots

chromium: ## Find or install the Chromium of the browser tests
	@tools/ensure_chromium.sh

clean: ## Remove the virtual environment and every tool's cache; fetched models and your labels stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so that an interrupted installation starts again.
$(VENV)/.installed: requirements.txt constraints.txt pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { python="$$(tools/find_python.sh)" && "$$python" -m venv --clear $(VENV); }
	@echo "Installing the requirements into $(VENV) (minutes, once) ..."
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo "Installing the development tools into $(VENV) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@
