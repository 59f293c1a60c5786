# Run `make help`. The virtual environment is made and kept up to date by scripts/install.sh.

VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes half of their time. A file's tests share what they start.
PARALLEL := -n 2 --dist loadfile
CODE := captioning clipcap web worker migrations scripts benchmarks examples recipes

.DEFAULT_GOAL := help
.PHONY: help run test test-fast check audit chaos pictures bench bench-service bench-gpu bench-quality bundled-model clean venv venv-dev

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

run: venv ## Install what is needed and run the service on http://127.0.0.1:8000
	@exec $(BIN)/captioning run

test: venv-dev ## Run all tests; sets up all they need, a browser included
	@CHROMIUM="$$(scripts/chromium.sh)" && export CHROMIUM && exec $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: venv-dev ## Run the tests that take no processes, browser or training
	@exec $(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

check: venv-dev ## ruff, mypy --strict, import-linter, bandit
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(CODE)

audit: venv-dev ## Known vulnerabilities in what is installed, or say that nobody could be asked
	@$(BIN)/python scripts/audit.py

chaos: venv-dev ## Kill parts of a whole service at random, again and again; ARGS="--runs 20" for longer
	$(BIN)/python -m tests.chaos.run $(ARGS)

pictures: venv-dev ## Take the pictures of the pages anew, into runs/pictures, and put them on one sheet
	@CHROMIUM="$$(scripts/chromium.sh)" && export CHROMIUM && PICTURES=runs/pictures exec $(BIN)/python -m pytest tests/browser/test_pictures.py
	$(BIN)/python scripts/picture_sheet.py runs/pictures docs/images/every-page.webp

bench: venv-dev ## Measure speed side by side; results in benchmarks/results-CHIP.md
	$(BIN)/python -m benchmarks cpu

bench-service: venv-dev ## The service under load; results in benchmarks/results-service.md
	$(BIN)/python -m benchmarks.service

bench-gpu: venv-dev ## The same on a GPU, or say that there is none; results in the same way
	$(BIN)/python -m benchmarks cuda

bench-quality: venv-dev ## What each precision costs on the dev photographs in DATA=folder
	$(BIN)/python -m benchmarks.quality "$(DATA)"

bundled-model: venv-dev ## Train the bundled model on DATA=folder (see recipes/bundled.toml)
	@test -d "$(DATA)/flickr8k/train" || { echo "make bundled-model DATA=folder: no $(DATA)/flickr8k/train"; exit 1; }
	$(BIN)/python recipes/group_captions.py "$(DATA)/text/captions.jsonl.gz" runs/texts.jsonl
	test -d runs/tower || $(BIN)/python recipes/efficientnet_tower.py runs/tower "$(DATA)/flickr8k" runs/texts.jsonl
	for seed in 0 1; do $(BIN)/clipcap train "$(DATA)/flickr8k" --out runs/tower-$$seed --seed $$seed \
		--config recipes/tower.toml --encoder runs/tower --pretrain-text runs/texts.jsonl || exit; done
	$(BIN)/python recipes/average_towers.py runs/averaged runs/tower-0.work/tuned runs/tower-1.work/tuned
	$(BIN)/clipcap train "$(DATA)/flickr8k" --out runs/bundled --config recipes/bundled.toml \
		--encoder runs/averaged --pretrain-text runs/texts.jsonl
	$(BIN)/clipcap evaluate runs/bundled "$(DATA)/flickr8k/dev" --json runs/bundled.json

clean: ## Remove what was built and cached; data/ and runs/ stay
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@scripts/install.sh local

venv-dev:
	@scripts/install.sh dev
