#!/bin/sh
# What needs a GPU, in one command: parity of the kernels, shared memory, compute-sanitizer, bandwidth and moves
# per second.
# $1 is the Python that has the wheel and the test tools; results go to the folder $2.
set -eu
python=$1 results=$2
trocar="$python -m trocar.runtime.cli"
$trocar --version --verbose
why=$("$python" -c 'from trocar.runtime.kernels import cuda; print(cuda.why_not() or "")')
[ -z "$why" ] || { echo "gpu: no GPU can be used here: $why" >&2; exit 2; }
mkdir -p "$results"

echo "==> parity: the kernels' tests on the GPU"
"$python" -m pytest tests/runtime/kernels -k cuda -rs

echo "==> shared memory: another process lends the server memory of the GPU"
"$python" -m pytest tests/integration/test_cuda_shared_memory.py -k gpu -rs

checker=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -1 || true)
if [ -n "$checker" ]; then
    for tool in memcheck racecheck synccheck initcheck; do
        echo "==> compute-sanitizer: $tool"
        "$checker" --tool "$tool" --error-exitcode 9 --target-processes all \
            "$python" -m pytest tests/runtime/kernels -k cuda -q -x
    done
else
    echo "gpu: no compute-sanitizer (it comes with the CUDA toolkit): not run" >&2
fi

echo "==> bench: bandwidth and moves per second"
$trocar bench run kernels-gpu -o "$results/kernels-gpu.json"
$trocar bench run anneal -o "$results/anneal.json"
