# `make` alone prints the targets. Every environment is made from the pins in requirements/.

.DEFAULT_GOAL := help
PYTHON ?= python3
MODEL ?= digits cifar10 cats_vs_dogs

# One environment per half, so that serving never installs TensorFlow.
.venv/%/.made: requirements/%.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with PYTHON=…"; exit 1; }
	$(PYTHON) -m venv --clear .venv/$*
	.venv/$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: help
help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: serve
serve: .venv/serve/.made ## Serve the models in models/ on port 8000
	@exec .venv/serve/bin/python -m serving

.PHONY: train
train: .venv/train/.made ## Train and publish the models; MODEL=digits for one
	.venv/train/bin/python -m training train $(MODEL)

.PHONY: bench-train
bench-train: .venv/train/.made ## Measure training, for about three hours on two cores
	.venv/train/bin/python -m bench.throughput.training $(ARGS)

.PHONY: bench
bench: .venv/bench/.made ## Measure the service beside FastAPI and Flask (needs Linux and wrk)
	.venv/bench/bin/python -m bench.throughput.serving $(ARGS)

.PHONY: test
test: .venv/dev/.made ## Run the tests on all cores; with DATA_DIR set, those on the real data too
	.venv/dev/bin/python -m pytest -n auto --dist loadfile -m "not system" $(ARGS)

.PHONY: test-system
test-system: .venv/dev/.made ## Run the tests that need other programs (see .ci/run)
	.venv/dev/bin/python -m pytest -m system $(ARGS)

.PHONY: mutants
mutants: .venv/dev/.made ## Report which changed lines of core modules no test notices (hours)
	.venv/dev/bin/mutmut run $(ARGS)
	.venv/dev/bin/mutmut results
	@.venv/dev/bin/mutmut results --all true | awk '{ sub(/\.x[^.]*$$/, "", $$1); all[$$1]++; killed[$$1] += /killed|timeout/ } \
		END { for (name in all) printf "%5.1f %% of %4d killed: %s\n", 100 * killed[name] / all[name], all[name], name }' | sort

.PHONY: lint
lint: .venv/dev/.made ## Check style and types
	.venv/dev/bin/ruff check .
	.venv/dev/bin/ruff format --check .
	.venv/dev/bin/mypy
	.venv/dev/bin/hadolint Dockerfile.serve Dockerfile.train

.PHONY: check
check: test test-system lint ## Run what CI runs

.PHONY: docs
docs: .venv/dev/.made ## Write the generated tables of README.md and docs/reference/
	.venv/dev/bin/python -m tests.tables

.PHONY: pins
pins: ## Compile requirements/ again from pyproject.toml (needs uv)
	for extra in serve serve-gpu train train-gpu; do $(COMPILE) --extra $$extra -o requirements/$$extra.txt; done
	$(COMPILE) --extra train --extra train-jax -o requirements/train-jax.txt
	$(COMPILE) --extra serve --extra bench -o requirements/bench.txt
	$(COMPILE) --extra serve --extra train --extra track --extra bench --group test --group lint --group mutants -o requirements/dev.txt

COMPILE = uv pip compile --quiet --upgrade --python-version 3.11 --universal --generate-hashes \
	--no-emit-index-url --no-header --no-annotate pyproject.toml

.PHONY: clean
clean: ## Remove the environments and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
