# Two commands do all the set-up: `make demo` shows the main job, `make test` proves it.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := export,cpu,eval,train,opencv-headless,dev
# NVIDIA ships the TensorRT-RTX wheels for x86-64 only; elsewhere the engine steps say that they are missing.
ifeq ($(shell uname -sm),Linux x86_64)
EXTRAS := $(EXTRAS),rtx
endif

.PHONY: demo test lint bench clean
demo: $(VENV)/installed
	$(BIN)/yolov3_trt demo -o runs/demo

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

# torch goes in before onnxscript & co. so that they find it and pull in no other.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
