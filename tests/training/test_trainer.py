from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")

from trocar.runtime.errors import InvalidInput  # noqa: E402
from trocar.training.judge import Verdict, judge_loss  # noqa: E402
from trocar.training.trainer import AdversarialTrainer  # noqa: E402


class Doubling(AdversarialTrainer):
    """One weight that should become 2; its judge is another weight."""

    schema = "trocar.doubling/1"

    def __init__(self, **changes):
        made = {"learning_rate": 0.1, "discriminator_rate": 0.01, "ema_decay": 0.5, "epochs": 4}
        weights = SimpleNamespace(adversarial=0.1, feature_matching=0.0)
        settings = SimpleNamespace(**{**made, "adversary_from": 0.5, "weights": weights, **changes})
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
        super().__init__(settings, self.net, torch.nn.Linear(1, 1), last_rate=0.1)

    def run_epoch(self, on_batch=None):
        assert on_batch is None
        self.set_rates(self.epoch / 4)
        ones = torch.arange(1.0, 4.0)[:, None]
        figures = self.step_generator({"l2": ((self.net(ones) - 2 * ones) ** 2).mean()})
        self.epoch += 1
        return {**figures, "seconds": 0.0}

    def run_facts(self):
        return {"wanted": 2}


def rates(trainer):
    return [group["lr"] for optimiser in trainer._optimisers.values() for group in optimiser.param_groups]


def test_rates_fall_along_a_cosine_and_may_rise_first():
    trainer = Doubling()
    found = {}
    for share in (0.0, 0.5, 1.0, 1.5):
        trainer.set_rates(share)
        found[share] = rates(trainer)
    assert found[0.0] == pytest.approx([0.1, 0.01])
    assert found[0.5] == pytest.approx([0.055, 0.0055])  # half way from 1 to 0.1
    assert found[1.0] == found[1.5] == pytest.approx([0.01, 0.001])
    trainer.set_rates(0.0, warm_up_steps=10)
    assert rates(trainer) == pytest.approx([0.01, 0.001])


def test_averages_follow_weights_and_running_statistics():
    trainer = Doubling()
    before = [tensor.clone() for tensor in trainer.averaged.state_dict().values()]
    trainer.run_epoch()
    decay = 2 / 11  # of the first step: short, so that the start is forgotten
    for mean, old, new in zip(
        trainer.averaged.state_dict().values(), before, trainer.net.state_dict().values(), strict=True
    ):
        wanted = decay * old + (1 - decay) * new if new.is_floating_point() else new
        torch.testing.assert_close(mean, wanted)
    assert not trainer.averaged.training


@pytest.mark.parametrize(("changes", "epochs"), [({}, [2, 3]), ({"adversary_from": 0.0}, [0, 1, 2, 3])])
def test_the_adversary_joins_when_it_is_told_to(changes, epochs):
    trainer = Doubling(**changes)
    joined = []
    for _ in range(4):
        if trainer.adversary_joined:
            joined.append(trainer.epoch)
        trainer.run_epoch()
    assert joined == epochs


def test_without_adversarial_weights_there_is_no_adversary():
    none = SimpleNamespace(adversarial=0.0, feature_matching=0.0)
    assert not Doubling(adversary_from=0.0, weights=none).adversary_joined


def test_the_judge_learns_to_tell_apart():
    trainer = Doubling()
    judge = trainer._networks["discriminator"]
    losses = []
    for _ in range(50):
        real, made = (Verdict(judge(torch.full((1, 1), x)), ()) for x in (1.0, -1.0))
        figures = trainer.step_judge(judge_loss(real, made, None, 0.0), {"real": real, "other": None})
        losses.append(figures["judge/loss"])
    assert losses[-1] < 0.8 * losses[0]
    assert set(figures) == {"judge/loss", "judge/real"}


def test_a_state_goes_on_to_the_same_end_and_no_other_run_takes_it(tmp_path):
    whole, half = Doubling(), Doubling()
    for _ in range(4):
        whole.run_epoch()
    for _ in range(2):
        half.run_epoch()
    half.save(tmp_path / "state.safetensors", {"history": [1]})
    rest = Doubling()
    assert rest.load(tmp_path / "state.safetensors")["history"] == [1]
    assert (rest.epoch, rest.steps) == (2, 2)
    for _ in range(2):
        rest.run_epoch()
    for name, tensor in whole.averaged.state_dict().items():
        torch.testing.assert_close(tensor, rest.averaged.state_dict()[name], rtol=0, atol=0)
    other = Doubling()
    other.run_facts = lambda: {"wanted": 3}
    with pytest.raises(InvalidInput, match="of another run: wanted: expected 3, got 2"):
        other.load(tmp_path / "state.safetensors")
    other.schema = "trocar.tripling/1"
    with pytest.raises(InvalidInput, match=r'expected schema "trocar\.tripling/1"'):
        other.load(tmp_path / "state.safetensors")
