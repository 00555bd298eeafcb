"""Compile the CUDA module with its kernels emulated on the CPU.

Objects and the module are named by what they are made from: a second run compiles nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nanobind

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
CSRC = ROOT / "runtime" / "kernels" / "csrc"
NANOBIND = Path(nanobind.include_dir())
INCLUDED = (CSRC, HERE, NANOBIND, NANOBIND.parent / "ext/robin_map/include", sysconfig.get_path("include"))
FLAGS = (
    *(
        "-std=c++17",
        "-O1",
        "-g1",
        "-fPIC",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
        "-ffp-contract=off",
    ),
    *("-DTROCAR_EMULATE_CUDA", "-DNB_DOMAIN=trocar_emulated"),
    *os.environ.get("TROCAR_EMULATION_FLAGS", "").split(),
)


def build(compiler: str, folder: Path) -> Path:
    """Return the module, made in `folder` where it is not there yet."""
    kernels = sorted(CSRC.glob("*_cuda.cu"))
    bindings = [CSRC / path.name.replace("_cuda.cu", "_bind.cpp") for path in kernels]
    sources = [
        *kernels,
        *filter(Path.exists, bindings),
        CSRC / "module_cuda.cpp",
        *sorted(HERE.glob("*.cpp")),
    ]
    headers = b"".join(path.read_bytes() for path in sorted([*CSRC.glob("*.h"), *HERE.glob("*.h")]))
    folder.mkdir(parents=True, exist_ok=True)
    command = [compiler, *FLAGS, *(f"-I{path}" for path in INCLUDED)]

    def compiled(source: Path) -> Path:
        made_from = source.read_bytes() + (headers if source.is_relative_to(ROOT) else b"")
        target = folder / f"{source.stem}-{_name(made_from, command)}.o"
        if not target.exists():
            _run([*command, "-x", "c++", "-c", str(source)], target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [Path(nanobind.source_dir()) / "nb_combined.cpp", *sources]))
    module = folder / f"_cuda-{_name(' '.join(map(str, objects)).encode(), command)}.so"
    if not module.exists():
        _run([compiler, *FLAGS, "-shared", *map(str, objects)], module)
    return module


def _name(made_from: bytes, command: list[str]) -> str:
    about = repr((command, nanobind.__version__, sysconfig.get_config_var("SOABI"))).encode()
    return hashlib.sha256(about + made_from).hexdigest()[:16]


def _run(command: list[str], target: Path) -> None:
    """Compile to a name of our own first: another run may be making the same."""
    partial = target.with_suffix(f".{os.getpid()}{target.suffix}")
    # A sanitizer that is preloaded for the tests is not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [*command, "-o", str(partial)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    partial.replace(target)
