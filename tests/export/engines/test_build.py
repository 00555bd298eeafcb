"""TensorRT, by a stand-in that records what it is asked, in a process of its own as the real one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trocar.export.engines import EngineFacts, Layer, Profile, build, build_engine
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.cuda import Gpu


def of(path: Path, **changes: Any) -> EngineFacts:
    return build_engine(path, **{"flavour": "tensorrt", "precision": "fp16", **changes})


def test_what_tensorrt_is_asked(install: Any, model: Any) -> None:
    library = install()
    of(model(), profile=Profile(1, 2, 4))
    assert library.calls() == [
        ["network", 1 << 1],  # strongly typed
        ["parse", 7],
        # The input of fixed size has no profile, nor has the scalar.
        ["profile", {"image": [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]}],
        ["build"],
        ["runtime"],
    ]


def test_what_tensorrt_rtx_is_asked(install: Any, model: Any) -> None:
    library = install("tensorrt_rtx")
    facts = of(model(), flavour="tensorrt-rtx", capabilities=("sm86", "sm89"))
    asked = library.calls()
    assert [call for call in asked if call[0] == "capability"] == [
        ["capability", 0, 2, "SM86"],
        ["capability", 1, 2, "SM89"],
    ]
    assert not [call for call in asked if call[0] in ("runtime", "timings")], "nothing that needs a GPU"
    assert facts.layers == (Layer("head", "CONVOLUTION", ("logits half [-1, 5, 8, 8]",)),)
    assert facts.layers_from == "network"


def test_what_is_known_of_an_engine(install: Any, model: Any) -> None:
    install()
    facts = of(model())
    assert facts.engine == b"engine of a model"
    assert facts.sha256 == hashlib.sha256(b"engine of a model").hexdigest()
    assert facts.model_sha256 == hashlib.sha256(b"a model").hexdigest()
    assert facts.file_name == "model.tensorrt-fp16-sm89.engine"
    assert facts.layers == (Layer("stem", "", ()), Layer("head+relu", "gemm", ("logits",)))
    assert (facts.layers_from, facts.cached) == ("engine", False)
    assert facts.document() == {
        "flavour": "tensorrt",
        "library": "tensorrt 99.1",
        "precision": "fp16",
        "capabilities": ["sm89"],
        "gpu": "Imaginary 9000",
        "batch": [1, 1, 8],
        "model_sha256": facts.model_sha256,
        "layers": 2,
    }


def test_an_engine_that_cannot_be_loaded_again_still_has_its_networks_layers(
    install: Any, model: Any
) -> None:
    install()
    assert of(model("opaque")).layers_from == "network"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("unreadable", InvalidInput, "tensorrt cannot read the model: node conv_7 (Conv): no such padding"),
        (
            "unbuildable",
            InvalidInput,
            "tensorrt cannot build the network for this GPU: node 'conv_7' has no implementation",
        ),
        (
            "two dynamic axes",
            InvalidInput,
            "input image: expected a dynamic batch and no other, got [-1, 3, -1, 8]",
        ),
        ("raise", DeviceError, "tensorrt failed while it built: RuntimeError: out of memory"),
        (
            "crash",
            DeviceError,
            "tensorrt failed while it built: killed by SIGSEGV: the compiler says something first",
        ),
    ],
)
def test_what_goes_wrong_is_one_line(install: Any, model: Any, words: str, error: type, message: str) -> None:
    install()
    with pytest.raises(error) as refused:
        of(model(words))
    assert str(refused.value) == message


def test_a_failed_build_is_not_cached(install: Any, model: Any, tmp_path: Path) -> None:
    library = install()
    for _ in range(2):
        with pytest.raises(InvalidInput):
            of(model("unbuildable"), cache=tmp_path / "cache")
    assert len(library.calls("build")) == 2


def test_a_warm_cache_builds_nothing(install: Any, model: Any, tmp_path: Path) -> None:
    library = install()
    first, second = (of(model(), cache=tmp_path / "cache") for _ in range(2))
    assert len(library.calls("build")) == 1
    assert (first.cached, second.cached) == (False, True)
    assert (second.engine, second.layers, second.document()) == (first.engine, first.layers, first.document())
    assert second.build_seconds == first.build_seconds


@pytest.mark.parametrize(
    "change", ["model", "precision", "profile", "version", "gpu", "capability", "flavour"]
)
def test_whatever_matters_is_in_the_key(
    install: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    library = install()
    path, cache = model(), tmp_path / "cache"
    of(path, cache=cache)
    options: dict[str, Any] = {}
    if change == "model":
        path.write_bytes(b"a modem")
    elif change == "precision":
        options["precision"] = "fp32"
    elif change == "profile":
        options["profile"] = Profile(1, 1, 1)
    elif change == "version":
        install(version="99.2")
    elif change == "flavour":
        install("tensorrt_rtx")
        options |= {"flavour": "tensorrt-rtx", "capabilities": ("sm89",)}
    else:
        gpu = Gpu(0, "Imaginary 8000", "sm89") if change == "gpu" else Gpu(0, "Imaginary 9000", "sm86")
        monkeypatch.setattr(build, "find_gpu", lambda: gpu)
    assert not of(path, cache=cache, **options).cached
    assert len(library.calls("build")) == 2


def test_a_damaged_entry_is_built_again_and_replaced(install: Any, model: Any, tmp_path: Path) -> None:
    library = install()
    of(model(), cache=tmp_path / "cache")
    for entry in (tmp_path / "cache").iterdir():
        entry.write_bytes(entry.read_bytes().replace(b"a model", b"an evil"))
    mended = of(model(), cache=tmp_path / "cache")
    assert (mended.cached, mended.engine) == (False, b"engine of a model")
    assert of(model(), cache=tmp_path / "cache").cached
    assert len(library.calls("build")) == 2


def test_timings_of_one_build_serve_the_next_on_the_same_gpu(
    install: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = install()
    for words in ("one", "two"):
        of(model(words), cache=tmp_path / "cache")
    monkeypatch.setattr(build, "find_gpu", lambda: Gpu(0, "Imaginary 8000", "sm89"))
    of(model("one"), cache=tmp_path / "cache")
    assert library.calls("timings") == [
        ["timings", "", False],
        ["timings", "timed;", False],
        ["timings", "", False],
    ]


def test_without_a_gpu_tensorrt_is_not_started(
    install: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = install()
    monkeypatch.setattr(build, "find_gpu", lambda: "libcuda.so.1 is not there")
    with pytest.raises(DeviceError, match=r"and there is none here: libcuda\.so\.1 is not there"):
        of(model())
    assert library.calls() == []


@pytest.mark.parametrize(
    ("flavour", "module", "extra"),
    [("tensorrt", "tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx", "rtx")],
)
def test_a_missing_library_names_the_extra(
    model: Any, monkeypatch: pytest.MonkeyPatch, flavour: str, module: str, extra: str
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(InvalidInput) as refused:
        of(model(), flavour=flavour)
    assert str(refused.value) == (
        f"{flavour} engines need {module}, not installed here: pip install 'trocar[{extra}]'"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "import not_there_at_all",
            "tensorrt is installed but incomplete: No module named 'not_there_at_all'",
        ),
        (
            "raise OSError('libnvinfer.so.10:\\n no such file')",
            "does not load: libnvinfer.so.10: no such file",
        ),
    ],
)
def test_a_library_that_does_not_load(
    install: Any, model: Any, tmp_path: Path, content: str, message: str
) -> None:
    install()
    (tmp_path / "installed" / "tensorrt.py").write_text(content)
    with pytest.raises(InvalidInput, match=message):
        of(model())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flavour": "openvino"}, "expected an engine of tensorrt, tensorrt-rtx, got 'openvino'"),
        ({"precision": "fp4"}, "expected a precision of fp32, fp16, int8, got 'fp4'"),
        ({"capabilities": ("sm86",)}, "tensorrt builds for the GPU at hand only, got sm86; tensorrt-rtx .*"),
        (
            {"flavour": "tensorrt-rtx", "capabilities": ("sm86", "sm86")},
            "expected each compute capability once, got sm86, sm86",
        ),
        (
            {"flavour": "tensorrt-rtx", "capabilities": ("sm87",)},
            "expected a compute capability of sm86, sm89, got 'sm87'",
        ),
    ],
)
def test_options_that_are_none(install: Any, model: Any, changes: dict[str, Any], message: str) -> None:
    install("tensorrt_rtx")
    install()
    with pytest.raises(InvalidInput, match=f"^{message}$"):
        of(model(), **changes)


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 3), (1, 4, 3)])
def test_profiles_that_are_none(batches: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="expected batches 1 <= min <= opt <= max, got"):
        Profile(*batches)


def test_a_model_that_is_not_there(install: Any, tmp_path: Path) -> None:
    install()
    with pytest.raises(InvalidInput, match=r"cannot read the model .*none\.onnx: No such file"):
        of(tmp_path / "none.onnx")


def test_progress_is_on_stderr_alone(install: Any, model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    install()
    of(model(), progress=True)
    assert capfd.readouterr().out == ""
    of(model())
    assert capfd.readouterr() == ("", "")


def test_its_package_is_light() -> None:
    code = (
        "import sys, trocar.export.engines; "
        "print(sorted({'numpy', 'onnx', 'rich', 'tensorrt', 'tensorrt_rtx', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
