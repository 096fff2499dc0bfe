"""The registry of arithmetics: what its entries build and cost, and entries of one's own through a whole run."""

import copy
import json

import pytest
import torch
from torch import nn

from evaluation.runs import checkpoints
from evaluation.runs.stages import Run
from evaluation.training.data import DeviceImages
from evaluation.training.loop import accuracy
from spaces.arithmetic.arithmetics import ARITHMETICS, Arithmetic
from spaces.arithmetic.factory import FixedLayers
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.costs import COSTS
from spaces.costs.model import Cost, CostModel
from spaces.costs.trace import LayerCost
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests import tiny
from tests.running import CPU, finished_run

EXACT, CHEAP = catalogue.get("mul8s_1KV8"), catalogue.get("mul8s_1L2H")


class Halves(Arithmetic):
    """Floating point of 16 bits in its products, which cost a third."""

    integer, bits = False, 16

    def conv(self, multiplier, *arguments, **named):  # noqa: ARG002
        return HalfConv(*arguments, **named)

    def linear(self, multiplier, inputs, outputs):  # noqa: ARG002
        return nn.Linear(inputs, outputs)

    def product_ratio(self, multiplier):  # noqa: ARG002
        return 1 / 3


class HalfConv(nn.Conv2d):
    def forward(self, x):
        y = self._conv_forward(x.bfloat16(), self.weight.bfloat16(), None).float()
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class Afterwards(Arithmetic):
    """Trained in fp32; the weights are rounded to their signs, times their mean size, when the training is over."""

    def conv(self, multiplier, *arguments, **named):  # noqa: ARG002
        return nn.Conv2d(*arguments, **named)

    def linear(self, multiplier, inputs, outputs):  # noqa: ARG002
        return nn.Linear(inputs, outputs)

    def converted(self, network):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data = layer.weight.sign() * layer.weight.abs().mean()
        return network


class Multiplications(CostModel):
    name, unit, source, leaves_out = "macs", "MAC", "counted", "all else"

    def once(self, row, arithmetic):  # noqa: ARG002
        return Cost({"products": float(row.macs)})


class NotAtHand(CostModel):
    name, unit, source, leaves_out = "latency", "ms", "nobody", "everything"

    def once(self, row, arithmetic):  # noqa: ARG002
        raise InputError("nobody has timed this layer")


@pytest.mark.parametrize(
    ("name", "conv", "linear", "multiplier"),
    [
        ("fp32", nn.Conv2d, nn.Linear, None),
        ("int8", ApproxConv2d, ApproxLinear, EXACT),
        ("approximate", ApproxConv2d, ApproxLinear, CHEAP),
    ],
)
def test_what_our_arithmetics_build(name, conv, linear, multiplier):
    layers = FixedLayers(name, CHEAP)
    made = layers.conv(3, 4, 5, padding=2, bias=False), layers.linear(4, 2)
    assert [type(layer) for layer in made] == [conv, linear]
    assert made[0].weight.shape == (4, 3, 5, 5) and made[0].padding == (2, 2) and made[0].bias is None
    for layer in made:
        assert layer.cost_multiplier is CHEAP
        assert multiplier is None or layer.multiplier.key == multiplier.key
    free = FixedLayers(name, None)
    assert [type(layer) for layer in (free.conv(3, 4, 5), free.linear(4, 2))] == [nn.Conv2d, nn.Linear]


def test_an_unknown_arithmetic_is_refused_by_every_space():
    problem = tiny.problem()
    with pytest.raises(InputError, match="unknown arithmetic 'aproximate'; did you mean approximate"):
        problem.space.build(problem.space.reference(), problem.shape, "aproximate")


def test_the_cost_of_an_arithmetic_by_hand():
    """Ten products and ten additions, four weights and six activations of two bytes."""
    row = LayerCost("layer", "conv", 10, CHEAP, 10, 4, 6, integer=True)
    with ARITHMETICS.temporarily("halves", Halves()):
        cost = COSTS["horowitz45"].layer(row, "halves")
        assert cost.parts == pytest.approx({"multiplications": 10 * 3.7 / 3, "additions": 10 * 0.9})
        assert cost.apart == pytest.approx({"memory": 10 * 2 * 2.5})
        assert COSTS["approxdarts"].layer(row, "halves").total == pytest.approx(37)  # its layer is fp32 in all of them


def test_a_fourth_arithmetic_and_a_third_cost_through_a_whole_run(tmp_path):
    """One class and one registry line each: the search is guided by the cost, and the record has both by name."""
    others = ARITHMETICS.temporarily("halves", Halves()), COSTS.temporarily("latency", NotAtHand())
    with others[0], others[1], COSTS.temporarily("macs", Multiplications()):
        config = tiny.run_config(cost="macs", baselines=("halves",))
        run = Run(config, tiny.dataset(), CPU, tiny.library(config))
        folder, _ = finished_run(tmp_path, config)
        record = json.loads((folder.path / "record.json").read_text())
        space, shape = run.problem.space, run.final_shape
        reference = space.costs(space.reference(), run.problem.shape)
        assert (record["cost"], record["reference_cost"]) == ("macs", sum(row.macs for row in reference))
        for number, finalist in enumerate(record["finalists"], 1):
            assert set(finalist["costs"]) == {"horowitz45", "system45", "approxdarts", "memory", "macs"}
            macs, energy = finalist["costs"]["macs"], finalist["costs"]["horowitz45"]
            rows = space.costs(space.from_json(finalist["architecture"]), shape)
            assert macs["unit"] == "MAC"
            assert macs["values"] == dict.fromkeys(ARITHMETICS, sum(row.macs for row in rows))
            assert energy["values"]["halves"] == COSTS["horowitz45"].network(rows, "halves").total
            tested = finalist["accuracy"]["test"]
            assert [name for name in tested if tested[name] is not None] == ["approximate", "halves"]
            assert folder.weights(number, "halves").exists()
        front = record["anytime"][-1]["front"]
        assert front and all(cost == int(cost) for _, cost in front)


def test_what_is_converted_after_training_is_tested_as_converted(tmp_path):
    with ARITHMETICS.temporarily("afterwards", Afterwards()):
        config = tiny.run_config(baselines=("afterwards",))
        run = Run(config, tiny.dataset(), CPU, tiny.library(config))
        folder, _ = finished_run(tmp_path, config)
        (finalist, *_) = json.loads((folder.path / "record.json").read_text())["finalists"]
        architecture = run.problem.space.from_json(finalist["architecture"])
        network = run.problem.space.build(architecture, run.final_shape, "afterwards")
        network.load_state_dict(checkpoints.load(folder.weights(1, "afterwards"), CPU))
        by_hand = copy.deepcopy(network)
        with torch.no_grad():
            for layer in by_hand.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.copy_(torch.where(layer.weight > 0, 1.0, -1.0) * layer.weight.abs().mean())
        data = DeviceImages(tiny.dataset().test(), *run.problem.data.statistics, CPU, run.problem.task)
        assert finalist["accuracy"]["test"]["afterwards"] == accuracy(by_hand, data)
        kept = next(layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d))
        assert not torch.allclose(kept.abs(), kept.abs().mean())  # the file holds what was trained
