#!/bin/sh
# Says in one line what the build needs and this machine lacks.
set -u
python=$1

lacks() {
    echo "trocar: $1" >&2
    exit 2
}

command -v "$python" >/dev/null 2>&1 ||
    lacks "needs Python 3.11 or newer, found no '$python' (Debian: apt-get install python3; or PYTHON=/path/to/python make ...)"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    lacks "needs Python 3.11 or newer, '$python' is $version (PYTHON=/path/to/python make ...)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    lacks "needs Python's venv module, '$python' ($version) has none (Debian: apt-get install python3-venv)"
"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
    lacks "needs the headers of Python $version (Debian: apt-get install python3-dev)"
"${CXX:-c++}" --version >/dev/null 2>&1 ||
    lacks "needs a C++17 compiler, found no '${CXX:-c++}' (Debian: apt-get install g++)"
