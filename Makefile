# Forebay's commands. `make demo` and `make test` need nothing but Python >= 3.11 and make; each sets up .venv itself.
# PYTHON=python3.12 picks an interpreter, JOBS=1 the number of test processes, ARGS="..." adds arguments.

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/.ready
LOCKS := requirements-dev.lock requirements.lock
JOBS ?= 2
ARGS ?=
IMAGE ?= forebay
PYTEST := $(BIN)/python -m pytest
# Each target has a list of its own of what failed, so that ARGS=--lf runs just that.
RUN := tools/run_tests.sh
# Seconds that one test may take before the run ends; pyproject.toml has the limit for all others.
PATIENT := -o faulthandler_timeout=900
# pytest ends with 5 when nothing was selected, which is no failure where a selection may be empty: of what failed, too.
MAY_BE_EMPTY := || { code=$$?; [ $$code -eq 5 ] || exit $$code; }
# A folder of tests/heavy with a requirements.txt gets an environment of its own, .venv-<folder>, on top of the locked one.
# With a requirements-alone.txt it gets just that: foreign clients want other versions of the same libraries.
HEAVY := $(sort $(patsubst tests/heavy/%/,%,$(dir $(wildcard tests/heavy/*/requirements.txt tests/heavy/*/requirements-alone.txt))))
HEAVY_TESTS := $(PYTEST) $(PATIENT) $(addprefix --ignore=tests/heavy/,$(HEAVY))
# A folder of tests/soak may have one as well; nothing but `make test-soak` makes its environment.
SOAK := $(patsubst tests/soak/%/requirements-alone.txt,%,$(wildcard tests/soak/*/requirements-alone.txt))

MANIFESTS := $(filter-out %/kustomization.yaml,$(wildcard deploy/k8s/base/*.yaml))

# Targets run one after the other, since tests measure; only environments are made two at a time, beside `make lint` if
# that is asked for in the same call: make --jobs=2 MAKING=environments lint heavy-environments.
ifneq ($(MAKING),environments)
.NOTPARALLEL:
endif

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(READY) ## Make .venv with everything pinned (the others do this themselves)

$(READY): $(LOCKS) pyproject.toml client/pyproject.toml
	@PYTHON="$(PYTHON)" tools/make_venv.sh .venv requirements-dev.lock
	@touch $@

.PHONY: demo
demo: $(READY) ## Play the bundled clip as cameras over real streams; pictures in out/
	@$(BIN)/forebay demo $(ARGS)

.PHONY: scale-demo
scale-demo: $(READY) .venv-scaling/.ready ## Three servers behind Envoy: how streams move while servers come and go
	@$(BIN)/python -m forebay_server.bench.scale_demo $(ARGS)

.PHONY: test
test: $(READY) ## Run the tests (about 10 minutes on 2 cores)
	@$(RUN) test $(PYTEST) -n $(JOBS) $(ARGS) $(if $(findstring --lf,$(ARGS)),$(MAY_BE_EMPTY))

.PHONY: test-heavy
test-heavy: $(READY) heavy-environments $(addprefix test-heavy-,$(HEAVY)) ## Run only what is heavy
	@ended=0; \
	($(RUN) heavy $(HEAVY_TESTS) -n $(JOBS) --dist loadscope -m "heavy and not soak and not alone" $(ARGS) $(MAY_BE_EMPTY)) || ended=$$?; \
	($(RUN) heavy-alone $(HEAVY_TESTS) -m "heavy and not soak and alone" $(ARGS) $(MAY_BE_EMPTY)) || ended=$$?; \
	exit $$ended

.PHONY: heavy-environments
heavy-environments: ## Make the environments of what is heavy, two at a time
ifeq ($(MAKING),environments)
heavy-environments: $(HEAVY:%=.venv-%/.ready)
else
	@$(MAKE) --no-print-directory --jobs=2 MAKING=environments $@
endif

.PHONY: test-all
test-all: test test-heavy ## Run the tests and what is heavy: the wheel, vendor libraries, foreign clients

.PHONY: test-gpu
test-gpu: ## Run the tests that need a CUDA device, with PYTHON or python3 and what is installed there; one table
	@$(or $(PYTHON),python3) tests/gpu/run.py $(ARGS)

.PHONY: test-soak
test-soak: $(READY) $(addprefix test-soak-,$(SOAK)) ## Run the tests that take minutes
	@$(PYTEST) $(PATIENT) -m soak $(addprefix --ignore=tests/soak/,$(SOAK)) $(ARGS) $(MAY_BE_EMPTY)

.PHONY: test-exporters
test-exporters: $(READY) .venv-exporters/.ready ## Export models with Ultralytics and compare its predictions with Forebay's
	@$(PYTEST) -o faulthandler_timeout=3600 -m exporters tests/exporters $(ARGS)

.PHONY: fuzz
fuzz: $(READY) ## Send a million changed messages and pictures to a server (about 10 minutes)
	@FOREBAY_FUZZ_MESSAGES=1000000 $(PYTEST) -o faulthandler_timeout=7200 -m heavy tests/heavy/test_fuzz.py $(ARGS)

.PHONY: $(addprefix test-soak-,$(SOAK))
$(addprefix test-soak-,$(SOAK)): test-soak-%: .venv-%/.ready
	@.venv-$*/bin/python -m pytest $(PATIENT) -m soak tests/soak/$* $(ARGS) $(MAY_BE_EMPTY)

.PHONY: $(addprefix test-heavy-,$(HEAVY))
$(addprefix test-heavy-,$(HEAVY)): test-heavy-%: .venv-%/.ready
	@$(RUN) heavy-$* .venv-$*/bin/python -m pytest $(PATIENT) -m "heavy and not soak" tests/heavy/$* $(ARGS) $(MAY_BE_EMPTY)

.venv-%/.ready: tests/heavy/%/requirements.txt $(LOCKS) pyproject.toml
	@PYTHON="$(PYTHON)" tools/make_venv.sh .venv-$* requirements-dev.lock $<
	@touch $@

.venv-%/.ready: tests/heavy/%/requirements-alone.txt pyproject.toml
	@PYTHON="$(PYTHON)" tools/make_venv.sh .venv-$* $<
	@touch $@

.venv-%/.ready: tests/soak/%/requirements-alone.txt pyproject.toml
	@PYTHON="$(PYTHON)" tools/make_venv.sh .venv-$* $<
	@touch $@

.venv-kubernetes/.ready: deploy/k8s/requirements.txt
	@$(or $(PYTHON),python3) -m venv --clear .venv-kubernetes
	@.venv-kubernetes/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv-%/.ready: tests/%/requirements-alone.txt pyproject.toml
	@PYTHON="$(PYTHON)" tools/make_venv.sh .venv-$* $<
	@touch $@

.PHONY: coverage
coverage: $(READY) ## Run the tests and say which lines they leave out
	@$(PYTEST) -n $(JOBS) --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

.PHONY: lint
lint: $(READY) ## Check style, layers, spelling, the Dockerfile, the manifests and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/codespell
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; else echo "hadolint: none for this platform"; fi
	@$(MAKE) --no-print-directory manifests
	@$(BIN)/mypy

.PHONY: manifests
manifests: .venv-kubernetes/.ready ## Check deploy/k8s against Kubernetes' schemas
	@.venv-kubernetes/bin/kubernetes-validate --quiet --strict $(MANIFESTS)

.PHONY: type
type: $(READY) ## Check types (mypy --strict)
	@$(BIN)/mypy

.PHONY: format
format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: proto
proto: .venv-wire/.ready ## Generate forebay/wire and engines/onnx_wire from protos/
	@.venv-wire/bin/python -m tools.generate_wire

.PHONY: diagrams
diagrams: $(READY) ## Generate the diagrams and tables of docs/ that come from the code
	@$(BIN)/python -m tools.diagrams

.PHONY: screenshots
screenshots: $(READY) ## Take the pictures of the live page in docs/images (needs chromium; 2 minutes)
	@$(BIN)/python -m tests.heavy.browser.screenshots docs/images

.PHONY: bench
bench: $(READY) ## Run the benchmarks (about 25 minutes) and write docs/benchmarks.md
	@$(BIN)/python -m forebay_server.bench --write $(ARGS)

.PHONY: bench-check
bench-check: $(READY) ## Run short benchmarks (at most 8 minutes); fail if a ratio is worse than its bar
	@$(BIN)/python -m forebay_server.bench --check $(ARGS)

.PHONY: report
report: $(READY) ## Load-test the server on 127.0.0.1:8001 and write out/load.html
	@mkdir -p out
	@$(BIN)/forebay load --html out/load.html $(ARGS)

.PHONY: image
image: ## Build the container image forebay:cpu with docker, podman or buildah; ENGINE picks one
	@tools/build_image.sh cpu $(IMAGE):cpu $(ARGS)

.PHONY: image-gpu
image-gpu: ## Build the container image forebay:gpu, with TensorRT
	@tools/build_image.sh gpu $(IMAGE):gpu $(ARGS)

.PHONY: image-offline
image-offline: $(READY) ## Build forebay:cpu where no registry answers, on a base made from Debian's packages
	@tools/build_image_offline.sh $(IMAGE):cpu $(ARGS)

.PHONY: test-image
test-image: $(READY) ## Build forebay:cpu twice and run it as platforms do (needs root, buildah, podman, runc, mmdebstrap)
	@tools/need_image_tools.sh buildah podman runc mmdebstrap
	@$(PYTEST) $(PATIENT) -m "heavy or soak" tests/heavy/test_image.py $(ARGS)

.PHONY: install-size
install-size: $(READY) ## Measure a fresh base install, by package, into docs/install-size.md
	@$(BIN)/python -m tools.install_size

.PHONY: image-locks
image-locks: $(READY) ## Write locks/, the packages of the images with their hashes
	@$(BIN)/python -m tools.lock_image

.PHONY: lock
lock: $(READY) ## Write the lock files from the versions in .venv
	@$(BIN)/python -m tools.lock

.PHONY: clean
clean: ## Remove everything that the commands above have made
	@rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache \
	    .coverage .coverage.* htmlcov out build dist *.egg-info \
	    client/build client/dist client/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
