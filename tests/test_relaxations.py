"""How logits become weights: sums, samples, hidden options."""

import numpy as np
import pytest
import torch

from methods.relaxations import RELAXATIONS
from spaces.space import Choice

CHOICES = {
    "alpha": Choice(("none", "a", "b", "c"), {"edges": np.arange(5)}, hidden=1),
    "beta": Choice(("exact", "rough"), {"edges": np.zeros(5, dtype=int)}, multipliers=True),
}
LOGITS = {"alpha": torch.linspace(-2, 2, 20).view(5, 4), "beta": torch.tensor([[1.0, -1.0]])}


def relaxed(name: str, seed: int = 0):
    return RELAXATIONS[name](CHOICES, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["gumbel", "uniform"])
def test_one_option_of_every_row_is_sampled_and_never_a_hidden_one(name):
    relaxation, counts = relaxed(name), np.zeros((5, 4))
    for _ in range(400):
        one = relaxation(LOGITS)
        assert set(one.sampled) == {"alpha"}  # multipliers are mixed
        assert torch.equal(one.weights["alpha"].argmax(-1), torch.from_numpy(one.sampled["alpha"]))
        assert torch.allclose(one.weights["alpha"].sum(-1), torch.ones(5))
        counts[np.arange(5), one.sampled["alpha"]] += 1
    expected = torch.ones(5, 3) / 3 if name == "uniform" else LOGITS["alpha"][:, 1:].softmax(-1)
    assert (counts[:, 0] == 0).all()
    assert np.abs(counts[:, 1:] / 400 - expected.numpy()).max() < 0.12  # five standard deviations


def test_a_held_sample_stays_and_the_next_one_is_another():
    relaxation = relaxed("gumbel")
    with relaxation.held(LOGITS):
        first, second = (relaxation(LOGITS).sampled["alpha"] for _ in range(2))
    assert (first == second).all()
    assert any((relaxation(LOGITS).sampled["alpha"] != first).any() for _ in range(9))


def test_options_by_sigmoid_are_independent_and_multipliers_are_not():
    one = relaxed("sigmoid")(LOGITS)
    assert torch.equal(one.weights["alpha"], LOGITS["alpha"].sigmoid()) and one.sampled is None
    assert one.weights["beta"].sum().item() == pytest.approx(1)
    scores = relaxed("sigmoid").scores(LOGITS)["alpha"]
    assert torch.allclose(scores.exp().float(), LOGITS["alpha"].sigmoid())
