"""Whether the device computes what the CPU does, around the engines: codes, scales, mixtures, gradients, logits.

On a CPU: whether all threads compute what one does.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.device_check.checks import AGREEMENT, Check, Outcome
from evaluation.device_check.threads import threads
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.arithmetic.quantise import Codes, quantise, weight_codes
from spaces.arithmetic.running_scales import RunningMaximum, RunningRange
from spaces.multipliers import catalogue
from spaces.registry import DEFAULT, SPACES
from spaces.shape import NetworkShape

# Largest difference as a share of the largest magnitude. Mixtures add fp32 numbers in an order of the device's own; in a
# network, such a difference can move an activation to the next code, which is up to 1/127 of its range.
MIXTURE_TOLERANCE, NETWORK_TOLERANCE = 1e-4, 5e-2
_MIXTURES = (
    ("dense", 3, 1, 1),
    ("depthwise", 3, 1, 12),
    ("pointwise", 1, 1, 1),
    ("dilated", 5, 2, 12),
)  # side, dilation, groups
LIBRARY = ("mul8s_1KV8", "mul8s_1KVL", "mul8s_1KX2", "mul8s_1L2H")
Side = tuple[str, torch.device, int]  # what to call it, the device, threads of the CPU


def checks(device: torch.device) -> list[Check]:
    """Codes and scales bit for bit, the rest within tolerances."""
    count = torch.get_num_threads()
    if device.type == "cpu" and count == 1:
        nothing = Outcome(note="nothing to compare: a CPU with one thread")
        return [Check(AGREEMENT, "one thread", lambda: nothing)]
    sides = (("the CPU", torch.device("cpu"), count), (str(device), device, count))
    if device.type == "cpu":
        sides = (("one thread", device, 1), (f"{count} threads", device, count))
    rows = (
        ("codes and scales", codes, 0.0),
        ("mixtures and gradients", mixtures, MIXTURE_TOLERANCE),
        ("logits of a network", logits, NETWORK_TOLERANCE),
    )
    return [Check(AGREEMENT, name, functools.partial(compare, what, sides, limit)) for name, what, limit in rows]


def compare(what: Callable[[torch.device], dict[str, Tensor]], sides: tuple[Side, Side], tolerance: float) -> Outcome:
    """Both sides of it, tensor by tensor; a tolerance of 0 asks for equal bits."""
    results = []
    for _, device, count in sides:
        with threads(count):
            results.append({name: value.detach().cpu() for name, value in what(device).items()})
    (first, *_), (second, *_) = sides
    worst = 0.0
    for name, expected in results[0].items():
        got = results[1][name]
        if got.shape != expected.shape:
            return Outcome(f"{name}: shape {tuple(got.shape)} on {second}, {tuple(expected.shape)} on {first}")
        if not bool(got.double().isfinite().all()):
            return Outcome(f"{name}: not finite on {second}")
        apart = (got.double() - expected.double()).abs()
        share = float(apart.max()) / max(float(expected.double().abs().max()), 1e-30) if apart.numel() else 0.0
        worst = max(worst, share)
        if share > tolerance:
            at = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
            found = f"at {at} {got[at].item()} on {second}, {expected[at].item()} on {first}"
            return Outcome(f"{name}: {found} (allowed: {tolerance:g} of the largest)")
    note = f"{first} and {second}: " + ("equal" if worst == 0 else f"apart by {worst:.1e} at most")
    return Outcome(note=note, values={"largest_difference": worst, "tolerance": tolerance})


def codes(device: torch.device) -> dict[str, Tensor]:
    """Codes and scales of activations over three batches, in training and afterwards, and of weights."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for kind, module in (("signed", RunningMaximum()), ("unsigned", RunningRange())):
        module.to(device)
        for batch in range(3):
            x = torch.randn((4, 8, 9, 9), generator=generator) * (1 + batch) + 0.25
            x = x.round(decimals=2) if batch == 1 else x  # many values in the middle between two codes
            x = x.contiguous(memory_format=torch.channels_last).to(device)
            found |= _coded(f"{kind} codes, batch {batch}", quantise(x, module.train(batch < 2)(x)))
    for name, shape in (("dense", (24, 8, 3, 3)), ("depthwise", (24, 1, 5, 5))):
        index, scale = weight_codes(torch.randn(shape, generator=generator).to(device))
        found |= {f"codes of a {name} weight": index, f"scale of a {name} weight": scale}
    return found


def _coded(name: str, codes: Codes) -> dict[str, Tensor]:
    clamped = torch.zeros_like(codes.index) if codes.clamped is None else codes.clamped
    zero = torch.as_tensor(codes.scale.zero)
    return {f"{name}: scale": codes.scale.step, f"{name}: zero": zero, name: codes.index, f"{name}: clamped": clamped}


def mixtures(device: torch.device) -> dict[str, Tensor]:
    """Values, and gradients for input, weight and probabilities, of mixtures of each kind."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(LIBRARY), generator=generator)
    for name, side, dilation, groups in _MIXTURES:
        x = torch.randn((3, 12, 8, 8), generator=generator)
        weight = torch.randn((12, 12 // groups, side, side), generator=generator)
        choice = MultiplierChoice(catalogue.library(LIBRARY))
        moves = {"padding": dilation * (side // 2), "dilation": dilation, "groups": groups}
        layer = MultiplierMixture(12, 12, side, bias=False, choice=choice, **moves)
        layer.load_state_dict({"weight": weight}, strict=False)
        layer.to(device)
        x = x.contiguous(memory_format=torch.channels_last).to(device).requires_grad_()
        beta = logits.to(device).requires_grad_()
        choice.set(beta.softmax(0))
        y = layer(x)
        towards = torch.randn(y.shape, generator=generator).to(device)
        gradients = torch.autograd.grad(y, (x, layer.weight, beta), towards)
        names = ("for the input", "for the weight", "for the probabilities")
        found[f"{name} mixture"] = y
        found |= {f"{name} mixture, gradient {part}": grad for part, grad in zip(names, gradients)}
    return found


def logits(device: torch.device) -> dict[str, Tensor]:
    """Of a small network of the default space in evaluation mode, after one pass in training mode."""
    cls = SPACES[DEFAULT]
    space = cls(catalogue.library(LIBRARY), cls.small)
    architecture = space.sample(np.random.default_rng(0))
    images = torch.randn((8, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = space.build(architecture, NetworkShape(4, 3, 10, (3, 12, 12)))
        network.to(device=device, memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        network.train()(images)
        answers = network.eval()(images)
    return {"logits": answers, "probabilities": F.softmax(answers, dim=1)}
