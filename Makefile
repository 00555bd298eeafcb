# The only inputs are Python 3.11 or newer with venv, a C++17 compiler, and PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEV := .venv-dev
STUBS := .venv-stubs
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(BIN)/python -m pip --quiet --quiet
SOURCES := $(wildcard $(shell git ls-files -co --exclude-standard -- bench planners runtime training export video proto cmake \
	pyproject.toml CMakeLists.txt LICENSE README.md 2>/dev/null))
WHEEL := build/wheel/.built
RUN := $(VENV)/.run
TOOLS := $(VENV)/.tools
PEERS := $(VENV)/.peers
BASELINES ?= out/bench
SANITIZED := build/sanitize/.built
PACKAGES := trocar.planners trocar.runtime trocar.training trocar.export trocar.video trocar.bench
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env build demo test dicomtools camera sanitize gpu bench figures testtrain testray check ruff types imports clang-format stubs-current pytest stubs dev picture clean
say = @printf '==> %s\n' "$(1)"

help: ## list the targets
	@echo "trocar: research software, not a medical device"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(RUN) ## plan a phantom and annotate a clip over gRPC; show figures and pictures
	@BIN=$(BIN) tools/demo.sh

test: dicomtools check pytest sanitize ## build and install the wheel, check it, test it

build: $(WHEEL) ## build the wheel into build/wheel

env: $(TOOLS) ## make .venv: the wheel, the test and check tools

testtrain: $(TOOLS) ## the tests that need torch, which the train extra brings
	$(call say,pip install: the train extra)
	@$(PIP) install "$$(echo build/wheel/*.whl)[train]"
	$(call say,pytest: training and export)
	@$(BIN)/pytest tests/training tests/planners/tpgan tests/video/annotator tests/export \
		tests/bench/workloads/test_tpgan_style.py

testray: $(TOOLS) ## the tests of serving on a Ray cluster, which the ray extra brings
	$(call say,pip install: the ray extra)
	@$(PIP) install "$$(echo build/wheel/*.whl)[ray]"
	$(call say,pytest: a cluster of three nodes)
	@$(BIN)/pytest tests/runtime/server/cluster tests/integration/test_ray.py

pytest: $(TOOLS)
	$(call say,pytest: the installed wheel)
	@$(BIN)/pytest

dicomtools: ## what DICOM files are tested with, from apt where there is root; else those tests skip
	$(call say,apt: dicom3tools dcmtk orthanc)
	@tools/dicomtools.sh

camera: $(TOOLS) ## the tests of a camera, on a virtual one in a machine that QEMU emulates (slow)
	$(call say,pytest: a camera)
	@tools/camera.sh $(BIN)/python build/camera

sanitize: $(TOOLS) $(SANITIZED) ## the kernels' tests with AddressSanitizer and UndefinedBehaviorSanitizer
	$(call say,pytest: the kernels with sanitizers)
	@tools/sanitize.sh $(BIN)/python build/sanitize/site

gpu: $(TOOLS) ## on a machine with a GPU: parity, compute-sanitizer, the kernels' bandwidth
	@tools/gpu.sh $(BIN)/python out/gpu

bench: $(PEERS) ## measure every figure of README (BASELINES=bench/baselines/DEVICE to keep them there)
	@tools/bench.sh $(BIN)/trocar $(BASELINES)

figures: ## write README's figures from the records (BASELINES=bench/baselines/DEVICE; else as README says)
	@$(PYTHON) tools/figures.py $(if $(filter-out out/bench,$(BASELINES)),$(BASELINES))

check: ruff types imports clang-format stubs-current ## ruff, mypy --strict, import rules, clang-format, stubs are current

ruff: $(TOOLS)
	$(call say,ruff)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

# mypy and lint-imports run in build/, where no folder of the checkout can stand in for the wheel.
types: $(TOOLS)
	$(call say,mypy --strict: the installed wheel)
	@cd build && ../$(BIN)/mypy --config-file ../pyproject.toml $(addprefix -p ,$(PACKAGES))

imports: $(TOOLS)
	$(call say,import-linter: the installed wheel)
	@cd build && ../$(BIN)/lint-imports --config ../pyproject.toml --no-logo

clang-format: $(TOOLS)
	$(call say,clang-format)
	@git ls-files '*.h' '*.cpp' '*.cu' | xargs $(BIN)/clang-format --dry-run -Werror

stubs-current: $(STUBS)/.made
	$(call say,protobuf stubs: what the .proto files say)
	@rm -rf build/stubs
	@PYTHON=$(CURDIR)/$(STUBS)/bin/python tools/stubs.sh $(CURDIR)/build/stubs
	@diff --recursive --brief --exclude='*.proto' --exclude=__pycache__ --exclude=py.typed build/stubs proto || \
		{ echo "stubs: not what the .proto files say; run make stubs" >&2; exit 1; }

stubs: $(STUBS)/.made ## generate the protobuf stubs beside the .proto files
	@PYTHON=$(CURDIR)/$(STUBS)/bin/python tools/stubs.sh

dev: | preflight ## make .venv-dev: an editable install and pre-commit, for working on trocar
	$(call say,$(DEV): editable install)
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python -m pip --quiet --quiet --disable-pip-version-check install --editable ".[test,check,dev]"
	@$(DEV)/bin/pre-commit install

picture: $(RUN) ## draw the pictures of docs/images anew
	$(call say,docs/images/plan.png)
	@$(BIN)/python tools/picture.py docs/images/plan.png
	$(call say,docs/images/video.png)
	@$(BIN)/trocar annotate rendered:3 --picture docs/images/video.png

clean: ## remove what make made
	rm -rf build dist out $(VENV) $(DEV) $(STUBS)

.PHONY: preflight
preflight:
	@tools/preflight.sh $(PYTHON)

$(BIN)/python: | preflight
	$(call say,$(VENV): a virtual environment)
	@$(PYTHON) -m venv $(VENV)

$(WHEEL): $(SOURCES) | $(BIN)/python
	$(call say,pip wheel: compile and pack)
	@rm -rf build/wheel
	@$(PIP) wheel --no-deps --wheel-dir build/wheel .
	@touch $@

$(SANITIZED): $(SOURCES) | $(BIN)/python
	$(call say,pip install: the CPU kernels with sanitizers)
	@rm -rf build/sanitize/site
	@$(PIP) install --no-deps --target build/sanitize/site --config-settings=build-dir=build/sanitize/cmake \
		--config-settings=cmake.define.TROCAR_SANITIZE=ON --config-settings=cmake.define.TROCAR_CUDA=OFF .
	@touch $@

# A wheel of the same version is not installed over an old one unless forced; its dependencies need not be.
$(RUN): $(WHEEL)
	$(call say,pip install: the wheel)
	@$(PIP) install build/wheel/*.whl
	@$(PIP) install --no-deps --force-reinstall build/wheel/*.whl
	@touch $@

$(TOOLS): $(RUN)
	$(call say,pip install: the tools that test and check)
	@$(PIP) install "$$(echo build/wheel/*.whl)[test,check,rtx]"
	@touch $@

$(PEERS): $(RUN)
	$(call say,pip install: what bench compares with)
	@$(PIP) install "$$(echo build/wheel/*.whl)[peers]"
	@touch $@

$(STUBS)/.made: tools/stubs-requirements.txt | preflight
	$(call say,$(STUBS): the stub generator)
	@$(PYTHON) -m venv $(STUBS)
	@$(STUBS)/bin/python -m pip --quiet --quiet --disable-pip-version-check install -r tools/stubs-requirements.txt
	@touch $@
