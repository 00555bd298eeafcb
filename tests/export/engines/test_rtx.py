"""TensorRT-RTX for real: it builds ahead of time and needs no GPU for that. Running an engine needs one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trocar.export.engines import RTX_CAPABILITIES, EngineFacts, Profile, build, build_engine
from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.store import shipped
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.cuda import Gpu, find_gpu
from trocar.runtime.session.ort import open_session
from trocar.runtime.session.tensorrt import open_engine

pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
GRAPHS = Path(__file__).parents[2] / "data" / "models"
STATIC = Profile(1, 1, 1)
TARGETS = [*((name,) for name in RTX_CAPABILITIES), RTX_CAPABILITIES]


def rtx(path: Path, **changes: Any) -> EngineFacts:
    """Build; for several batch sizes unless told otherwise."""
    return build_engine(path, **{"flavour": "tensorrt-rtx", "precision": "fp32", **changes})


@pytest.fixture(scope="module")
def tpgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network, which has dynamic shapes inside."""
    path = tmp_path_factory.mktemp("tpgan") / "model.onnx"
    path.write_bytes(shipped().open("tpgan").read("model.onnx"))
    return path


@pytest.fixture(scope="module")
def precisions(tpgan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped network in float16, and in int8 with ranges of noise: it is built, not used."""
    pytest.importorskip("onnx", reason="the train extra is not installed")
    from trocar.export.quantise import to_fp16, to_int8

    graph, folder = tpgan.read_bytes(), tmp_path_factory.mktemp("precisions")
    inputs = open_session(graph, device="cpu").inputs
    random = np.random.default_rng(0)
    batches = [
        {spec.name: random.random((2, *spec.shape[1:])).astype(spec.dtype) for spec in inputs}
        for _ in range(2)
    ]
    for name, content in (("fp16", to_fp16(graph)), ("int8", to_int8(graph, batches))):
        (folder / f"{name}.onnx").write_bytes(content)
    return {name: folder / f"{name}.onnx" for name in ("fp16", "int8")}


def build_twice(path: Path, precision: str, capabilities: tuple[str, ...], monkeypatch: Any) -> EngineFacts:
    """Build for one batch size, under other circumstances the second time; the bytes must not tell."""
    wanted: dict[str, Any] = {"precision": precision, "capabilities": capabilities, "profile": STATIC}
    first = rtx(path, **wanted)
    with monkeypatch.context() as change:
        change.setenv("PYTHONHASHSEED", "7")
        change.setenv("SOMETHING_ELSE", "x" * 3000)
        change.chdir("/")
        second = rtx(path, **wanted, progress=True)
    assert first.sha256 == second.sha256
    return first


@pytest.mark.parametrize("capabilities", TARGETS, ids="-".join)
def test_the_shipped_network_builds_twice_to_the_same_bytes(
    tpgan: Path, capabilities: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = build_twice(tpgan, "fp32", capabilities, monkeypatch)
    assert facts.capabilities == capabilities
    assert facts.library.startswith("tensorrt_rtx 1.")
    # The weights are inside: 1.02 million numbers of 4 bytes.
    assert len(facts.engine) > 0.95 * tpgan.stat().st_size
    convolutions = [layer for layer in facts.layers if layer.kind == "CONVOLUTION"]
    assert len(convolutions) == 13
    assert facts.layers[-1].outputs[0].startswith("probability float [-1, 16, 16, 16]")


@pytest.mark.parametrize("capabilities", TARGETS, ids="-".join)
@pytest.mark.parametrize(("graph", "precision"), [("half", "fp16"), ("quantised", "int8")])
def test_types_are_those_of_the_file(
    graph: str, precision: str, capabilities: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = build_twice(GRAPHS / f"{graph}.onnx", precision, capabilities, monkeypatch)
    made = {layer.kind: layer.outputs for layer in facts.layers}
    if precision == "fp16":
        assert made["CONVOLUTION"] == ("sums half [-1, 4, 8, 8]",)
    else:
        assert made["QUANTIZE"] == ("image_q int8 [-1, 2, 8, 8]",)
        assert made["CONVOLUTION"] == ("logits float [-1, 4, 8, 8]",)


@pytest.mark.parametrize("capabilities", [("sm80",), RTX_CAPABILITIES], ids="-".join)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fewer_bits_build_twice_to_the_same_bytes(
    precisions: dict[str, Path],
    precision: str,
    capabilities: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = build_twice(precisions[precision], precision, capabilities, monkeypatch)
    kinds = [layer.kind for layer in facts.layers]
    if precision == "fp16":
        halves = [layer for layer in facts.layers if " half " in " ".join(layer.outputs)]
        assert len(halves) > len(facts.layers) / 2, "the types of the file are kept"
    else:
        assert kinds.count("QUANTIZE") >= 13


def test_targets_have_engines_of_their_own(tpgan: Path) -> None:
    found = {rtx(tpgan, capabilities=(name,)).sha256 for name in ("sm86", "sm120")}
    assert len(found) == 2


def test_an_engine_for_several_batches(tpgan: Path) -> None:
    """Names of its inner values may differ from build to build, so its bytes may; see docs/engines.md."""
    first, second, static = rtx(tpgan), rtx(tpgan), rtx(tpgan, profile=STATIC)
    assert first.layers == second.layers
    assert first.document() == second.document()
    assert first.document()["batch"] == [1, 1, 8]
    assert abs(len(first.engine) - len(second.engine)) < 0.001 * len(first.engine)
    assert static.sha256 not in (first.sha256, second.sha256)


def test_a_warm_cache_skips_the_build(tpgan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rtx(tpgan, cache=tmp_path)
    monkeypatch.setattr(build, "_run_worker", lambda *_: pytest.fail("built again"))
    second = rtx(tpgan, cache=tmp_path)
    assert (second.engine, second.layers, second.cached) == (first.engine, first.layers, True)


def test_what_it_cannot_build_is_named_by_its_node(tpgan: Path) -> None:
    with pytest.raises(InvalidInput, match=r"for sm75: .*'node_Conv_374'.* FP32 3D convolution") as refused:
        rtx(tpgan, capabilities=("sm75",))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("unknown_operator", r"cannot read the model: node the_odd_one \(Transmogrify\): "),
        ("broken_run", "cannot build the network .*node_of_square"),
    ],
)
def test_nodes_it_does_not_take_are_named(graph: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        rtx(GRAPHS / f"{graph}.onnx")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"not a model" * 9, b"\x08\x08", bytes(1 << 16)])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InvalidInput, match="tensorrt_rtx cannot "):
        rtx(tmp_path / "model.onnx")


def test_weights_outside_are_not_looked_for_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(6, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="Failed to import initializer: weights"):
        rtx(GRAPHS / "external.onnx")


OPEN = """
import sys
from pathlib import Path
from trocar.runtime.errors import DeviceError
from trocar.runtime.session.tensorrt import open_engine
import tensorrt_rtx
facts = {"flavour": "tensorrt-rtx", "library": f"tensorrt_rtx {tensorrt_rtx.__version__}",
         "capabilities": ["sm89"], "gpu": ""}
try:
    open_engine(Path(sys.argv[1]).read_bytes(), facts=facts, inputs=(), outputs=(), name="pair")
except DeviceError as error:
    print(error)
"""


def test_without_a_gpu_opening_an_engine_says_so_and_lives(tmp_path: Path) -> None:
    if isinstance(find_gpu(), Gpu):
        pytest.skip("there is a GPU here")
    (tmp_path / "engine").write_bytes(rtx(GRAPHS / "pair.onnx", capabilities=("sm89",)).engine)
    command = [sys.executable, "-c", OPEN, str(tmp_path / "engine")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, f"{find_gpu()}\n"), done.stderr


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_gives_what_onnx_runtime_gives(
    tpgan: Path, precision: str, request: pytest.FixtureRequest
) -> None:
    gpu = find_gpu()
    if not isinstance(gpu, Gpu):
        pytest.skip(f"no GPU to run an engine on: {gpu}")
    if gpu.capability not in RTX_CAPABILITIES:
        pytest.skip(f"TensorRT-RTX does not know {gpu.name} ({gpu.capability})")
    path = tpgan if precision == "fp32" else request.getfixturevalue("precisions")[precision]
    facts = rtx(path, precision=precision, capabilities=(gpu.capability,))
    reference = open_session(tpgan, device="cpu")
    session = open_engine(
        facts.engine, facts=facts.document(), inputs=reference.inputs, outputs=reference.outputs
    )
    random = np.random.default_rng(0)
    for batch in (1, 3):
        feeds = {
            spec.name: random.random((batch, *_fixed(spec))).astype(np.float32) for spec in reference.inputs
        }
        found, expected = session.run(feeds)["probability"], reference.run(feeds)["probability"]
        np.testing.assert_allclose(found, expected, atol=2e-3 if precision == "fp32" else 2e-2)


def _fixed(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if isinstance(size, int))
