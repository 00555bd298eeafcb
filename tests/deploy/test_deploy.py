"""The files in deploy/ start the program that is here, with options that it has."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fnmatch
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.config import parse_config
from trocar.runtime.server.cli import COMMAND

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (test extra)")

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "trocar.service"
# KServe's ServingRuntimeSpec, without what is ModelMesh's or of many nodes: of a pod it takes no other field.
RUNTIME_FIELDS = {
    "affinity",
    "annotations",
    "containers",
    "disabled",
    "hostIPC",
    "imagePullSecrets",
    "labels",
}
RUNTIME_FIELDS |= {"multiModel", "nodeSelector", "protocolVersions", "supportedModelFormats", "tolerations"}
RUNTIME_FIELDS |= {"volumes"}


def unit_value(key: str) -> str:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser["Service"][key]


def manifest() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kserve" / "serving-runtime.yaml").read_text()))


def dockerfile(pattern: str) -> list[str]:
    return re.findall(pattern, (DEPLOY / "docker" / "Dockerfile").read_text(), re.MULTILINE)


def test_every_command_line_is_one_that_trocar_takes() -> None:
    container = manifest()[1]["spec"]["containers"][0]
    (image,) = dockerfile(r"^CMD (\[.*\])$")
    commands = [shlex.split(unit_value("ExecStart"))[1:], container["args"], json.loads(image)]
    parser = argparse.ArgumentParser(exit_on_error=False)
    COMMAND.configure(parser)
    for verb, *options in commands:
        assert verb == COMMAND.name
        parser.parse_args(options)


def test_the_manifests_configuration_is_one_that_the_server_takes() -> None:
    text = manifest()[0]["data"]["trocar.toml"]
    config = parse_config(tomllib.loads(text), where="trocar.toml")
    assert config.server.services == "inference"


def test_probes_and_ports_are_where_the_server_listens() -> None:
    container = manifest()[1]["spec"]["containers"][0]
    (port,) = (each["containerPort"] for each in container["ports"])
    assert container["args"][container["args"].index("--listen") + 1].endswith(f":{port}")
    assert container["readinessProbe"]["grpc"]["port"] == container["livenessProbe"]["grpc"]["port"] == port
    # Without its model a pod is not ready, and restarting it would not help.
    assert container["readinessProbe"]["grpc"]["service"] == "inference.GRPCInferenceService"
    assert "service" not in container["livenessProbe"]["grpc"]


def test_the_manifest_is_a_serving_runtime() -> None:
    configured, runtime = manifest()
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    spec = runtime["spec"]
    assert spec.keys() <= RUNTIME_FIELDS
    assert spec["protocolVersions"] == ["grpc-v2"]
    assert all(form["name"] and isinstance(form["version"], str) for form in spec["supportedModelFormats"])
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"
    assert [port["name"] for port in container["ports"]] == ["h2c"]
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in spec["volumes"]}
    assert volumes == {"config": configured["metadata"]["name"]}
    (mount,) = container["volumeMounts"]
    assert mount["name"] in volumes
    assert container["args"][container["args"].index("--config") + 1] == f"{mount['mountPath']}/trocar.toml"
    assert configured["data"].keys() == {"trocar.toml"}


def test_kubernetes_can_tell_that_the_image_is_not_root() -> None:
    assert manifest()[1]["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] is True
    (user,) = dockerfile(r"^USER (.+)$")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)  # a name is refused


def test_a_drain_ends_before_whoever_waits_for_it_kills() -> None:
    default = parse_config({}, where="nothing").server.drain_grace_s
    assert int(unit_value("TimeoutStopSec")) > default
    text = manifest()[0]["data"]["trocar.toml"]
    kubernetes_s = 30  # terminationGracePeriodSeconds, which a ServingRuntime cannot set
    assert parse_config(tomllib.loads(text), where="trocar.toml").server.drain_grace_s < kubernetes_s


def test_what_the_image_copies_is_there_and_nothing_else_reaches_a_build() -> None:
    root = DEPLOY.parent
    assert set(dockerfile(r"^COPY (?!--)(\S+) ")) == {".", "tools/healthy.py"}
    lines = (root / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    assert all((root / each).exists() for each in sent)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    packages = project["tool"]["scikit-build"]["wheel"]["packages"].values()
    folders = {Path(package).parts[0] for package in packages} | {"cmake"}
    files = {
        "CMakeLists.txt",
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
    }
    assert sent == folders | files | {"tools/healthy.py"}


def test_the_unit_lets_nvidias_devices_in_whatever_the_driver_calls_them() -> None:
    allowed = re.findall(r"^DeviceAllow=char-(\S+) rw$", UNIT.read_text(), re.MULTILINE)
    old, new = ["nvidia-frontend"], ["nvidia", "nvidiactl"]  # in /proc/devices: before 550, and since
    for device in [*old, *new, "nvidia-uvm", "nvidia-caps", "video4linux"]:
        assert any(fnmatch.fnmatch(device, pattern) for pattern in allowed), device
    assert not any(fnmatch.fnmatch("mem", pattern) for pattern in allowed)


def test_systemd_accepts_the_unit_and_rates_it_safe(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    copy = tmp_path / "trocar.service"
    copy.write_text(UNIT.read_text().replace("/opt/trocar/bin/trocar", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in verified.stderr.splitlines() if "trocar.service" in line]
    assert ours == []
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-2000:]  # over 2.5 of 10 is exposed


def _drained(manager: socket.socket) -> int:
    """How many messages were waiting."""
    manager.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while manager.recv(200):
            count += 1
    return count


def test_the_server_tells_its_manager_ready_alive_and_stopping(
    start_server: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        server = start_server(listen=f"unix:{tmp_path}/s")
        assert manager.recv(200).startswith(b"READY=1\nSTATUS=listening on unix:")
        assert [manager.recv(200) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        server.process.send_signal(signal.SIGSTOP)  # hangs: no more beats
        time.sleep(0.3)
        _drained(manager)
        time.sleep(1.0)
        assert _drained(manager) == 0
        server.process.send_signal(signal.SIGCONT)
        manager.settimeout(30)
        assert manager.recv(200) == b"WATCHDOG=1"
        assert server.stop() == 0
        last = b""
        while not last.startswith(b"STOPPING=1"):
            last = manager.recv(200)
