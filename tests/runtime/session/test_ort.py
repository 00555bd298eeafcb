from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session import ort
from trocar.runtime.session.base import TensorSpec


def test_dtypes_scalars_and_unnamed_axes(graphs: Path) -> None:
    session = ort.open_session((graphs / "mixed.onnx").read_bytes(), device="cpu")
    assert session.inputs == (TensorSpec("pixels", "uint8", (None, 4)), TensorSpec("mask", "bool", ()))
    answer = session.run({"pixels": np.full((3, 4), 255, np.uint8), "mask": np.array(True)})
    assert answer["wide"].dtype == np.int64
    assert answer["wide"].tolist() == [[255] * 4] * 3
    assert not answer["inverse"]


@pytest.mark.parametrize("content", [b"", b"not a model" * 9, b"\x08\x08"])
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"model\.onnx: expected an ONNX model: .+") as refused:
        ort.open_session(tmp_path / "model.onnx")
    assert "\n" not in str(refused.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read the model"):
        ort.open_session(tmp_path / "none.onnx")


def test_weights_in_another_file_are_refused(
    tmp_path: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(graphs / "external.onnx", tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(24))
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "external.onnx", (tmp_path / "external.onnx").read_bytes()):
        with pytest.raises(InvalidInput, match="expected an ONNX model"):
            ort.open_session(source)


def test_a_graph_that_fails_while_running_is_a_device_error(graphs: Path) -> None:
    session = ort.open_session(graphs / "broken_run.onnx")
    with pytest.raises(DeviceError, match=r"broken_run\.onnx: ONNX Runtime failed"):
        session.run({"left": np.zeros((1, 2, 3), np.float32)})


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(graphs: Path, threads: int) -> None:
    with pytest.raises(InvalidInput, match="expected 1 thread or more"):
        ort.open_session(graphs / "pair.onnx", threads=threads)


def test_an_output_of_another_shape_than_the_graph_gives_is_a_device_error(graphs: Path) -> None:
    session = ort.open_session(graphs / "mixed.onnx", device="cpu")
    pixels, mask = np.zeros((3, 4), np.uint8), np.array(True)
    found = {"wide": np.zeros((2, 4), np.int64), "inverse": np.zeros((), np.bool_)}
    with pytest.raises(DeviceError, match=r"mixed\.onnx: ONNX Runtime failed"):
        session.run_into({"pixels": pixels, "mask": mask}, found)
    found["wide"] = np.zeros((3, 4), np.int64)
    session.run_into({"pixels": pixels + np.uint8(9), "mask": mask}, found)
    assert found["wide"].tolist() == [[9] * 4] * 3
    assert not found["inverse"]


def test_a_device_array_is_refused_on_the_cpu(graphs: Path) -> None:
    session = ort.open_session(graphs / "pair.onnx", device="cpu")
    feeds = {name: np.zeros((2, 2, 3), np.float32) for name in ("left", "right")}
    facts = {"shape": (2, 2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}
    found = {"total": SimpleNamespace(__cuda_array_interface__=facts), "difference": feeds["left"].copy()}
    with pytest.raises(InvalidInput, match="output total: expected memory of the cpu, got a device array"):
        session.bind(feeds, found)


def test_threads_reach_the_backend(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = onnxruntime.InferenceSession

    def spy(data: bytes, options: Any, providers: list[str]) -> Any:
        seen.append((options.intra_op_num_threads, options.inter_op_num_threads, providers))
        return real(data, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    ort.open_session(graphs / "pair.onnx", threads=3, device="cpu")
    assert seen == [(3, 1, ["CPUExecutionProvider"])]


def test_text_and_numbers_of_any_size(graphs: Path) -> None:
    session = ort.open_session(graphs / "kinds.onnx", device="cpu")
    feeds = {
        "text": np.array([["", "naïve\0"]], object),
        "bool": np.array([[True, False]]),
        "float32": np.array([[0.1, 1]], np.float32),
        "float64": np.array([[0.1, 1]], np.float64),
    } | {
        name: np.array([[np.iinfo(name).min, np.iinfo(name).max]], name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    }
    for name, array in session.run(feeds).items():
        given = feeds[name.removesuffix("_out")]
        assert (array.dtype, array.tolist()) == (given.dtype, given.tolist())
    with pytest.raises(InvalidInput, match="input text: expected elements of type str"):
        session.run({**feeds, "text": np.array([["", b"bytes"]], object)})
    with pytest.raises(InvalidInput, match="expected elements of one size to bind, got strings"):
        session.bind(feeds, {f"{name}_out": array.copy() for name, array in feeds.items()})


def test_bfloat16_as_its_bits(graphs: Path) -> None:
    session = ort.open_session(graphs / "brain.onnx", device="cpu")
    assert session.inputs == (TensorSpec("brain", "bfloat16", ("batch", 2)),)
    bits = np.array([[0x3FC0, 0xC000]], np.uint16)  # 1.5, -2
    answer = session.run({"brain": bits})
    assert (answer["same"].dtype, answer["same"].tolist()) == (np.uint16, bits.tolist())
    assert answer["wide"].tolist() == [[1.5, -2.0]]
    same, wide = np.zeros_like(bits), np.zeros((1, 2), np.float32)
    session.run_into({"brain": bits}, {"same": same, "wide": wide})
    assert (same.tolist(), wide.tolist()) == (bits.tolist(), [[1.5, -2.0]])
    with pytest.raises(InvalidInput, match="brain: expected bfloat16"):
        session.run({"brain": bits.astype(np.float16)})


def test_text_beside_bfloat16_is_refused(graphs: Path) -> None:
    with pytest.raises(InvalidInput, match="expected no strings beside bfloat16"):
        ort.open_session(graphs / "text_and_brain.onnx", device="cpu")


def test_sessions_lend_each_other_memory() -> None:
    """A second one of the same network needs next to nothing to run, where it needed as much as the first."""
    code = """
        import numpy as np
        from pathlib import Path
        from trocar.runtime import zoo
        from trocar.runtime.session.ort import open_session

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1])

        model = Path(zoo.__path__[0]) / "annotator" / "1" / "model.onnx"
        sessions = [open_session(model, device="cpu") for _ in range(2)]
        name, grown = sessions[0].inputs[0].name, [resident()]
        for session in sessions:
            for _ in range(3):
                session.run({name: np.zeros((1, 3, 256, 448), np.float32)})
            grown.append(resident())
        print(grown[1] - grown[0], grown[2] - grown[1])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second < first / 2
