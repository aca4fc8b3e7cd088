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

.PHONY: demo test lint bench shapes-model clean
demo: $(VENV)/installed
	$(BIN)/yolov3_trt demo -o runs/demo

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

# How the bundled model was made (docs/training.md); about an hour on two cores. Its weights then go to yolov3_trt/models/.
shapes-model: $(VENV)/installed
	$(BIN)/yolov3_trt shapes -o runs/shapes-data --train 5000 --val 300 --seed 2026
	$(BIN)/yolov3_trt train --data runs/shapes-data/data.yaml --model shapes --from-scratch --epochs 20 --batch-size 8 \
		--learning-rate 0.01 --warmup-epochs 1 --prior-iou 0.5 --mosaic 0.3 --scale 0.3 --saturation 0.3 --value 0.3 \
		--val-every 2 --seed 0 --cache-mib 1500 -o runs/shapes

# torch goes in before onnxscript & co. so that they find it and pull in no other.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
