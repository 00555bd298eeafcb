#!/bin/sh
# The kernels' tests with AddressSanitizer and UndefinedBehaviorSanitizer: the CPU kernels of the build in
# $2, and the CUDA ones emulated. $1 is the Python that has the test tools.
set -eu
python=$1 site=$(cd "$2" && pwd)
compiler=${CXX:-c++}
# Python is not built with the sanitizer, so it is loaded before anything else. Python itself leaks.
for library in asan ubsan; do
    path=$("$compiler" -print-file-name="lib$library.so")
    [ -e "$path" ] || { echo "sanitize: '$compiler' has no lib$library.so" >&2; exit 2; }
    preload=${preload:+$preload:}$path
done
export LD_PRELOAD="$preload"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH="$site"
export TROCAR_EMULATION_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
exec "$python" -m pytest tests/runtime/kernels
