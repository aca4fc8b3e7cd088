# Two commands do all the set-up: `make demo` shows the main job, `make test` proves it.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := export,cpu,openvino,train,triton,opencv-headless,dev
# NVIDIA ships the TensorRT-RTX wheels for Linux on x86-64 and aarch64; elsewhere the engine steps say that they are missing.
ifneq ($(filter Linux-x86_64 Linux-aarch64,$(shell uname -s)-$(shell uname -m)),)
EXTRAS := $(EXTRAS),rtx
endif

# TensorRT 8.6 has wheels up to Python 3.10 only. PYTHON310 names one, e.g. ~/.pyenv/versions/3.10.13/bin/python3.10.
PYTHON310 ?= python3.10
VENV86 := .venv-trt86
PACKAGES86 := $(VENV86)/lib/python3.10/site-packages

VENV_TRITON := .venv-triton
VENV_DOCS := .venv-docs

PYCUDA := .venv-pycuda

.PHONY: demo test test-docs test-slow site fuzz lint lock sbom legs arm64 bench kernels shapes-model tensorrt86 pycuda-simulated triton gpu-test clean
demo: $(VENV)/installed
	$(BIN)/yolov3_trt demo -o runs/demo

# Two processes share the tests, each computing with one thread; a machine with more cores and memory (2 GB each) takes more.
TEST_PROCESSES ?= 2
test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal -m "not slow"

# The blocks of README and docs, run in order as a reader would: about four minutes.
test-docs: $(VENV)/installed
	$(BIN)/python -m pytest -m slow tests/docs

# README and docs as pages with a search and a reference made from the code, in build/site; broken links and misspelt words fail.
site: $(VENV_DOCS)/installed
	$(VENV_DOCS)/bin/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md engines/README.md calib/README.md docs --skip "*.ipynb,*.json"
	NO_MKDOCS_2_WARNING=1 $(VENV_DOCS)/bin/mkdocs build --quiet

$(VENV_DOCS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[docs]"
	touch $@

# What takes long for what it shows anew each time: soaks, accuracy studies, killed builds, the blocks of the docs.
test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal -m slow

# Damaged input for every reader, all together so many minutes; READERS names some of them.
MINUTES ?= 10
fuzz: $(VENV)/installed
	$(BIN)/python -m tests.fuzz $(MINUTES) $(READERS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# The built wheel as others have it: newest and lowest versions, Debian's own, base and extras alone. LEGS names some of them.
legs: $(VENV)/installed
	$(BIN)/python .ci/legs.py $(LEGS)

# One of them: emulated aarch64, which needs root, mmdebstrap and qemu-user-static, and about four minutes.
arm64: $(VENV)/installed
	$(BIN)/python .ci/legs.py arm64

bench: $(VENV)/installed
	$(BIN)/python -m pytest benchmarks --benchmark-only

# The kernels' machine code that the package ships, anew after their sources changed; NVRTC comes as wheels (0.3 GB to download).
kernels: $(VENV)/installed
	$(BIN)/python .ci/kernels.py .venv-kernels

# How the bundled model was made (docs/training.md); about an hour on two cores. Its weights then go to yolov3_trt/models/.
shapes-model: $(VENV)/installed
	$(BIN)/yolov3_trt data shapes -o runs/shapes-data --train 5000 --val 300 --seed 2026
	$(BIN)/yolov3_trt train --data runs/shapes-data/data.yaml --model shapes --from-scratch --epochs 20 --batch-size 8 \
		--learning-rate 0.01 --warmup-epochs 1 --prior-iou 0.5 --mosaic 0.3 --scale 0.3 --saturation 0.3 --value 0.3 \
		--val-every 2 --seed 0 --cache-mib 1500 -o runs/shapes

# With LOCK=requirements-ci.lock, as in CI, each file must have the hash that stands there; it is for one Python on one kind of
# machine, which its first line names.
$(VENV)/installed: pyproject.toml constraints.txt $(LOCK)
	$(PYTHON) -m venv $(VENV)
ifdef LOCK
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
endif
	touch $@

# After a change of constraints.txt or of what pyproject.toml asks for.
lock: $(VENV)/installed
	$(BIN)/python .ci/lock.py "$(EXTRAS)" > requirements-ci.lock.new
	mv requirements-ci.lock.new requirements-ci.lock

# dist/sbom.json (CycloneDX): the wheel and all that its base asks for, in the versions that CI tested. The tool has an environment of
# its own; the one that it looks at holds nothing but the wheel, pip neither.
sbom: $(VENV)/installed
	rm -rf .venv-sbom && mkdir -p dist
	$(PYTHON) -m venv .venv-sbom/tool
	.venv-sbom/tool/bin/python -m pip install --quiet cyclonedx-bom
	$(PYTHON) -m venv --without-pip .venv-sbom/wheel
	$(BIN)/python -m pip --python .venv-sbom/wheel/bin/python install --quiet -c $(CONSTRAINTS) .
	.venv-sbom/tool/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		-o dist/sbom.json .venv-sbom/wheel/bin/python
	rm -rf .venv-sbom

# A venv with the full TensorRT 8.6.0 (0.8 GB to download), in which tests/engine/test_tensorrt86.py runs this package. It needs no GPU
# to be imported. Its plugin library, which this package does not use, would take cuDNN and cuBLAS: an empty one stands in.
tensorrt86: $(VENV)/installed $(VENV86)/installed
	$(BIN)/python -m pytest tests/engine/test_tensorrt86.py

$(VENV86)/installed:
	$(PYTHON310) -m venv $(VENV86)
	$(VENV86)/bin/python -m pip install --quiet --no-deps tensorrt==8.6.0
	$(VENV86)/bin/python -m pip install --quiet 'numpy>=1.23,<2' 'pydantic>=2.5' 'filelock>=4.1' 'tomli>=2.0'
	echo 'int initLibNvInferPlugins(void *logger, const char *space) { return 1; }' | \
		$(CC) -x c -shared -fPIC -Wl,-soname,libnvinfer_plugin.so.8 -o $(PACKAGES86)/tensorrt/libnvinfer_plugin.so.8 -
	touch $@

# A venv with NVIDIA's Triton Inference Server (0.4 GB), in which these tests serve models on the CPU. The
# package that carries it wants NumPy 1, for which OpenCV 4.11 is the last; all else is as in $(VENV), so that results are equal.
triton: $(VENV)/installed $(VENV_TRITON)/installed
	$(BIN)/python -m pytest tests/deploy/test_deploy_server.py tests/backends/test_triton_*.py

$(VENV_TRITON)/installed:
	$(PYTHON) -m venv $(VENV_TRITON)
	sed -E '/^(numpy|opencv)/d' $(CONSTRAINTS) > $(VENV_TRITON)/constraints.txt
	$(VENV_TRITON)/bin/python -m pip install --quiet --prefer-binary -c $(VENV_TRITON)/constraints.txt \
		nvidia-pytriton==0.7.0 'numpy<2' -e ".[cpu,opencv-headless]"
	touch $@

# The real pycuda on a stand-in for the driver, which runs the kernels as the tests' simulation does; compiling it takes minutes.
pycuda-simulated: $(VENV)/installed
	tests/sim/driver/run.sh $(PYCUDA) $(PYTHON)

# The acceptance on a machine with an NVIDIA GPU (docs/gpu.md). TRT_PYTHON has TensorRT, pycuda and pytest; TORCH_PYTHON has PyTorch.
TRT_PYTHON ?= $(BIN)/python
TORCH_PYTHON ?= $(TRT_PYTHON)
gpu-test:
	$(TORCH_PYTHON) -m acceptance.acceptance --python $(TRT_PYTHON) --torch-python $(TORCH_PYTHON) $(GPU_TEST_OPTIONS)

clean:
	rm -rf $(VENV) $(VENV_DOCS) .venv-kernels $(VENV86) $(PYCUDA) $(VENV_TRITON) runs .pytest_cache .mypy_cache .ruff_cache
