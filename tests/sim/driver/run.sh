#!/usr/bin/env bash
# Compiles the real pycuda, a stand-in for the driver to link it to, and runs tests/runtime/test_pycuda.py on both. Needs the CUDA toolkit
# (CUDA_ROOT, default /usr/local/cuda) and g++, no GPU; some minutes the first time.
# Usage: run.sh FOLDER PYTHON
set -euo pipefail
folder=$(mkdir -p "${1:?usage: run.sh FOLDER PYTHON}" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=$folder/venv/bin/python
cuda=${CUDA_ROOT:-/usr/local/cuda}
link="gcc -Wall -Wextra -Wno-unused-parameter -O1 -fPIC -shared -Wl,-soname,libcuda.so.1"

if [ ! -f "$folder/installed" ]; then
	"${2:?usage: run.sh FOLDER PYTHON}" -m venv "$folder/venv"
	"$python" -m pip install -q setuptools wheel 'numpy<2.3'
	"$python" -m pip download -q --no-deps --no-binary pycuda --no-build-isolation -d "$folder" pycuda==2026.1
	rm -rf "$folder/source" && mkdir -p "$folder/source" "$folder/link"
	tar -xf "$folder"/pycuda-2026.1.tar.gz -C "$folder/source" --strip-components=1
	$link -o "$folder/link/libcuda.so" "$here/libcuda.c" -ldl
	(cd "$folder/source" && "$python" configure.py --no-cuda-enable-curand --cuda-root="$cuda" --ldflags="-L$folder/link")
	(cd "$folder/source" && CPATH=$cuda/include "$python" -m pip install -q --no-build-isolation .)
	"$python" -m pip install -q -c "$root/constraints.txt" --no-deps -e "$root"
	"$python" -m pip install -q filelock pydantic rich typer tomli opencv-python-headless onnx onnxruntime pytest pytest-timeout
	touch "$folder/installed"
fi
# What pycuda is linked to and nothing here calls: it fails.
nm -D --undefined-only "$folder"/venv/lib/python3*/site-packages/pycuda/_driver*.so | awk '{print $2}' | grep '^cu[A-Z]' | sort >"$folder/wanted"
grep -o '^API Result cu[A-Za-z0-9_]*' "$here/libcuda.c" | awk '{print $3}' | sort >"$folder/there"
comm -23 "$folder/wanted" "$folder/there" | awk '{print "int " $1 "(void) { return 801; }"}' >"$folder/missing.c"
$link -o "$folder/libcuda.so.1" "$here/libcuda.c" "$folder/missing.c" -ldl
cd "$root"
[ -f "$folder/shapes.onnx" ] || .venv/bin/yolov3_trt export shapes -o "$folder/shapes.onnx"
LD_LIBRARY_PATH=$folder SIMULATED_DRIVER=1 SHAPES_ONNX=$folder/shapes.onnx "$python" -m pytest -q tests/runtime/test_pycuda.py -o addopts= -p no:cacheprovider
