from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")

from trocar.planners.tpgan.network import NETWORK  # noqa: E402
from trocar.planners.tpgan.run import train_network  # noqa: E402
from trocar.planners.tpgan.settings import ARMS, SCHEMA, NetworkSettings, TrainSettings  # noqa: E402
from trocar.planners.tpgan.train import Trainer  # noqa: E402
from trocar.runtime.errors import InvalidInput  # noqa: E402
from trocar.training import checkpoint  # noqa: E402
from trocar.training.run import state_path  # noqa: E402

TINY = TrainSettings(
    epochs=4, batch_size=2, adversary_from=0.25, network=NetworkSettings((8, 16, 16)), seed=3
)


class Silent:
    def __init__(self, stop_after=None):
        self.stop_after, self.went_on_after, self.epochs = stop_after, None, []

    def resumed(self, epoch):
        self.went_on_after = epoch

    def batch(self, share):
        assert 0.0 < share <= 1.0

    def epoch(self, number, figures):
        self.epochs.append(dict(figures))
        if number == self.stop_after:
            raise KeyboardInterrupt


def test_it_learns_two_cases_by_heart(dataset):
    settings = TrainSettings(
        epochs=60, batch_size=2, network=NetworkSettings((8, 16, 32)), weights=ARMS["no-adversarial"]
    )
    data = dataset(2)
    trainer = Trainer(data, settings, mirror=False)
    trainer._train = trainer._held = np.arange(2)
    first = trainer.validate()
    for _ in range(settings.epochs):
        last = trainer.run_epoch()
    assert first["validation/dice"] < 0.5
    assert last["validation/dice"] > 0.9
    assert last["validation/bce"] < 0.75 * first["validation/bce"]


def test_a_run_that_was_killed_ends_as_one_that_was_not(dataset, tmp_path):
    data, whole, parts = dataset(5), tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    watched = Silent()
    train_network(Trainer(data, TINY), {}, output=whole, watcher=watched)
    with pytest.raises(KeyboardInterrupt):
        train_network(Trainer(data, TINY), {}, output=parts, watcher=Silent(stop_after=2))
    assert not parts.exists()
    again = Silent()
    train_network(Trainer(data, TINY), {}, output=parts, watcher=again)
    assert again.went_on_after == 2
    assert len(again.epochs) == 2
    first, second = (
        checkpoint.read_checkpoint(state_path(path), schema=SCHEMA)[0] for path in (whole, parts)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any("judge_optimiser" in name for name in first)  # the adversary took part
    report = json.loads(state_path(parts).with_suffix(".json").read_text())
    assert [len(report["history"]), report["epoch"]] == [4, 4]


def test_a_seed_decides_the_run(dataset):
    data, settings = dataset(3), replace(TINY, epochs=1, adversary_from=0.0)
    runs = [Trainer(data, replace(settings, seed=seed)) for seed in (1, 1, 2)]
    figures = [trainer.run_epoch() for trainer in runs]
    assert figures[0]["loss/total"] == figures[1]["loss/total"] != figures[2]["loss/total"]
    weights = [torch.cat([p.flatten() for p in trainer.generator.parameters()]) for trainer in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_arms_without_an_adversary_train_none(dataset):
    trainer = Trainer(dataset(3), replace(TINY, weights=ARMS["bce"], adversary_from=0.0))
    before = [weights.clone() for weights in trainer.discriminator.parameters()]
    figures = trainer.run_epoch()
    assert {name for name in figures if name.startswith("loss/")} == {"loss/cross_entropy", "loss/total"}
    assert not any(name.startswith("judge/") for name in figures)
    after = trainer.discriminator.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_another_runs_state_is_refused(dataset, tmp_path):
    trainer = Trainer(dataset(2), TINY)
    trainer.save(tmp_path / "state.safetensors", {"history": []})
    Trainer(dataset(2), TINY).load(tmp_path / "state.safetensors")
    for other, data, message in (
        (replace(TINY, arm="bce"), dataset(2), "of another run: arm: expected bce, got full"),
        (TINY, dataset(3), "of another run: cases: expected 3, got 2"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Trainer(data, other).load(tmp_path / "state.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_a_broken_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"checkpoint net\.safetensors: "):
        checkpoint.read_checkpoint(path, schema=SCHEMA)


def test_a_network_comes_back_from_its_checkpoint(dataset, tmp_path):
    output = tmp_path / "net.safetensors"
    metadata = train_network(
        Trainer(dataset(2), replace(TINY, epochs=1)),
        {"data": "synthetic"},
        output=output,
        watcher=Silent(),
        novelty={"cases": 7},
    )
    module, again = NETWORK.load(output)
    assert NETWORK.manifest_fields(again)["novelty"] == {"cases": 7}
    assert again["training"] == metadata["training"]
    assert again["training"]["data"] == "synthetic"
    features, noise = NETWORK.example_inputs(batch=3)
    probability = module(features, noise)
    assert probability.shape == (3, 16, 16, 16)
    assert bool((probability[features[:, 4] == 0] == 0).all())
    assert bool((probability[features[:, 4] == 1] > 0).all())
    trainer = Trainer(dataset(2), replace(TINY, epochs=1))
    trainer.load(state_path(output))
    assert torch.equal(trainer.averaged(features, noise), probability)


def test_a_run_state_is_no_network(dataset, tmp_path):
    Trainer(dataset(2), TINY).save(tmp_path / "state.safetensors", {"history": []})
    with pytest.raises(InvalidInput, match="is a run's checkpoint: expected the network it gave"):
        NETWORK.load(tmp_path / "state.safetensors")


def test_tensors_of_another_width_do_not_fit(dataset, tmp_path):
    trainer = Trainer(dataset(2), TINY)
    path = tmp_path / "net.safetensors"
    facts = {"network": {"widths": [8, 16, 32], "feature_channels": 8, "noise_channels": 2}}
    checkpoint.write_checkpoint(path, trainer.averaged.state_dict(), facts, schema=SCHEMA)
    with pytest.raises(InvalidInput, match="tensors do not fit the network"):
        NETWORK.load(path)


def test_a_log_for_tensorboard_is_written(dataset, tmp_path):
    pytest.importorskip("tensorboard", reason="the log needs tensorboard")
    train_network(
        Trainer(dataset(2), replace(TINY, epochs=1)),
        {},
        output=tmp_path / "net.safetensors",
        watcher=Silent(),
        log_folder=tmp_path / "log",
    )
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))


def test_it_trains_on_cuda_as_on_the_cpu(dataset):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    settings = replace(TINY, epochs=1, adversary_from=0.0)
    cpu, cuda = (Trainer(dataset(3), settings, device=device).run_epoch() for device in ("cpu", "cuda"))
    assert cuda["loss/total"] == pytest.approx(cpu["loss/total"], rel=1e-2)
