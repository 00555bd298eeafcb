#!/bin/sh
# Generates the protobuf stubs next to the .proto files, or into the folder given. They are made with
# the oldest grpcio-tools we support, because generated code runs on its own protobuf or a newer one.
#
#   tools/stubs.sh [FOLDER]      PYTHON=... names the interpreter that has the tools installed
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
out=${1:-$root/proto}

found=$("$python" - <<'EOF'
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
print(of("grpcio-tools"), of("mypy-protobuf"))
EOF
)
if [ "$found" != "1.71.2 3.6.0" ]; then
    echo "stubs: expected grpcio-tools and mypy-protobuf 1.71.2 3.6.0, found $found" >&2
    exit 2
fi

# protoc looks for its mypy plugins on PATH, and they sit beside the interpreter.
PATH=$(dirname "$("$python" -c 'import sys; print(sys.executable)')"):$PATH
export PATH
mkdir -p "$out"
cd "$root/proto"
"$python" -m grpc_tools.protoc -I . --python_out="$out" --grpc_python_out="$out" \
    --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" trocar/v1/*.proto
# Package `inference` is in the protobuf pool of every process that imports tritonclient's stubs too, where
# each name may stand once: ours get a pool of their own. The service has no stub: it is served from bytes.
"$python" -m grpc_tools.protoc -I . --python_out="$out" --mypy_out=quiet:"$out" inference_v2/*.proto
for file in "$out"/inference_v2/*_pb2.py; do
    sed -i 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' "$file"
    grep -q 'DescriptorPool()\.AddSerializedFile' "$file" || { echo "stubs: no pool to replace in $file" >&2; exit 1; }
done
echo "stubs: wrote $(find "$out" -name '*_pb2*' | wc -l) files under $out" >&2
