"""Protocols: how candidates and finalists are trained and judged. Nothing here imports torch."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import tyro

from spaces.errors import InputError, suggest

GradientPrecision = Annotated[Literal["auto", "bf16", "fp32"], tyro.conf.arg(prefix_name=False)]  # --gradient-precision
# Settings that older records know nothing of, as they were then
_AS_BEFORE = (("gradient_precision", "fp32"), ("warmup", 0.0), ("label_smoothing", 0.0), ("judgements", 1))
LARGEST = 4096  # of any size that a person sets: beyond, a typing error is likelier than a wish


def require_finite(prefix: str, settings: Any) -> None:
    """Raises InputError for a number in the dataclass ``settings`` that is NaN or infinite."""
    for name, value in asdict(settings).items():
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"--{prefix}.{name.replace('_', '-')} must be finite, not {number}")


@dataclass(frozen=True)
class Protocol:
    """How candidates are trained and judged. Results of different protocols are never compared: see ``hash``."""

    name: tyro.conf.Suppress[str]  # any changed value adds "-custom"
    validation_share: float = 0.5
    """Share of the training images kept for validation during search and selection (DARTS: half)."""
    split_seed: int = 0
    """Seed of the stratified split into training and validation part; a run's own seed is added to it."""
    search_channels: int = 16
    """Initial channels of networks in search and selection."""
    search_cells: int = 8
    """Cells of networks in search and selection."""
    search_batch: int = 64
    """Batch size in search."""
    selection_epochs: int = 10
    """Epochs of the brief training of a candidate, in selection and inside methods that train candidates."""
    selection_lr: float = 0.025
    """First learning rate of that training (SGD, cosine to zero)."""
    judgements: int = 1
    """Trainings from scratch, each by random numbers of its own, by whose mean error a proposal is judged."""
    finalists: int = 3
    """Proposals that are trained in full."""
    finalist_margin: float = 0.05
    """A finalist's validation error may exceed that of the best proposal by at most this much (0..1)."""
    final_channels: int = 36
    """Initial channels of the final networks."""
    final_cells: int = 20
    """Cells of the final networks."""
    final_epochs: int = 600
    """Epochs of the final training."""
    final_lr: float = 0.025
    """First learning rate of the final training (SGD, cosine to zero)."""
    batch: int = 96
    """Batch size in selection and final training."""
    momentum: float = 0.9
    """Momentum in selection and final training."""
    weight_decay: float = 3e-4
    """Weight decay in selection and final training."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    crop_padding: int = 4
    """Random crop: zero pixels added on every side before cropping back."""
    flip: bool = True
    """Random horizontal flip."""
    cutout: int = 16
    """Side in pixels of the square that is blanked out in final training; 0 turns it off."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss in final training; 0 turns it off."""
    drop_path: float = 0.2
    """Last probability of dropping a path in final training, rising linearly from 0."""
    warmup: float = 0.0
    """Share of selection and final training in which the learning rate rises linearly, before it falls."""
    label_smoothing: float = 0.0
    """Probability that the loss of final training spreads over all classes (Szegedy et al., CVPR 2016)."""
    gradient_precision: GradientPrecision = "fp32"
    """Gradients of 8-bit layers, in every stage: fp32; bf16 where a layer gains by it; auto: bf16 on devices that are much
    faster in it, decided once for a run. Results depend on it. fp32 layers stay fp32."""

    def __post_init__(self) -> None:
        require_finite("protocol", self)
        if not 0 < self.validation_share < 1:
            raise InputError(f"validation_share must lie between 0 and 1, not {self.validation_share}")
        for counted in ("search_batch", "selection_epochs", "judgements", "finalists", "final_epochs", "batch"):
            if getattr(self, counted) < 1:
                raise InputError(f"{counted} must be at least 1, not {getattr(self, counted)}")
        for positive in ("selection_lr", "final_lr", "clip"):
            if not getattr(self, positive) > 0:
                raise InputError(f"{positive} must be positive, not {getattr(self, positive)}")
        for bounded in ("momentum", "drop_path", "warmup", "label_smoothing"):
            if not 0 <= getattr(self, bounded) < 1:
                raise InputError(f"{bounded} must be in [0, 1), not {getattr(self, bounded)}")
        for kept in ("weight_decay", "crop_padding", "cutout", "auxiliary_weight", "finalist_margin"):
            if not getattr(self, kept) >= 0:
                raise InputError(f"{kept} must not be negative, but is {getattr(self, kept)}")
        for sized in ("search_cells", "final_cells", "search_channels", "final_channels", "crop_padding", "cutout"):
            if getattr(self, sized) > LARGEST:
                raise InputError(f"{sized} must be at most {LARGEST}, not {getattr(self, sized)}")

    @property
    def hash(self) -> str:
        """SHA-256 over every value but the name; what came later leaves no trace in it where it changes nothing."""
        values = {key: value for key, value in asdict(self).items() if (key, value) not in _AS_BEFORE and key != "name"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Quick(Protocol):
    """8×8 digits on two CPU cores, the whole job in three minutes. All values are ours."""

    name: tyro.conf.Suppress[str] = "quick"
    search_channels: int = 8
    search_cells: int = 3
    search_batch: int = 32
    selection_epochs: int = 4
    selection_lr: float = 0.1
    finalists: int = 2
    finalist_margin: float = 0.1
    final_channels: int = 8
    final_cells: int = 3
    final_epochs: int = 6
    final_lr: float = 0.1
    batch: int = 32
    crop_padding: int = 1
    flip: bool = False
    cutout: int = 0
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0


@dataclass(frozen=True)
class Fast(Protocol):
    """A trial on CIFAR-10 in minutes: with ``--train-limit 2000`` on two CPU cores.

    Ours where it differs from ``darts``: few epochs want a high learning rate and little regularisation, as in the fast
    CIFAR-10 recipes (Page, "How to train your ResNet", 2018; Jordan, "94 % on CIFAR-10 in 3.29 seconds", arXiv
    2404.00498), so that there is no drop-path and a smaller cutout.
    """

    name: tyro.conf.Suppress[str] = "fast"
    search_cells: int = 5
    search_batch: int = 64
    selection_epochs: int = 3
    selection_lr: float = 0.1
    finalists: int = 1
    final_channels: int = 16
    final_cells: int = 6
    final_epochs: int = 10
    final_lr: float = 0.1
    batch: int = 64
    cutout: int = 8
    drop_path: float = 0.0


@dataclass(frozen=True)
class Gpu(Protocol):
    """All of CIFAR-10 on one large GPU, in some eight minutes by a run that was stopped before its end (docs/gpu.md).

    Ours, after the same recipes as ``fast``: large batches keep a GPU busy, and want a high learning rate that begins low
    (Goyal et al., arXiv 1706.02677). There is no cutout, as ten epochs are few; what it would do was not tried.
    """

    name: tyro.conf.Suppress[str] = "gpu"
    search_cells: int = 6
    search_batch: int = 256
    selection_epochs: int = 2
    selection_lr: float = 0.2
    finalists: int = 1
    finalist_margin: float = 0.01
    final_channels: int = 32
    final_cells: int = 6
    final_epochs: int = 10
    final_lr: float = 0.2
    batch: int = 256
    weight_decay: float = 5e-4
    warmup: float = 0.2
    cutout: int = 0
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0
    label_smoothing: float = 0.1


@dataclass(frozen=True)
class Darts(Protocol):
    """The published setting of DARTS on CIFAR-10 (Liu, Simonyan, Yang, ICLR 2019, section 3.1 and appendix A.1).

    Search: half of the training images judge, 16 channels, 8 cells, batch 64. Selection: from scratch for 100 epochs.
    Final: 36 channels, 20 cells, 600 epochs, batch 96, SGD 0.025 → 0 along a cosine, momentum 0.9, weight decay 3e-4,
    clip 5, cutout 16, auxiliary head 0.4, drop-path up to 0.2. ApproxDARTS (arXiv 2404.08002) takes these over. Ours:
    three finalists instead of one, from the proposals of one search, and candidates of the search's size in selection.
    """

    name: tyro.conf.Suppress[str] = "darts"
    selection_epochs: int = 100


@dataclass(frozen=True)
class Bench(Protocol):
    """Small networks on ``fashion14``, seconds for each: those of the tables of trained networks. All values are ours."""

    name: tyro.conf.Suppress[str] = "bench"
    search_channels: int = 8
    search_cells: int = 2
    search_batch: int = 64
    selection_epochs: int = 5
    selection_lr: float = 0.2
    finalists: int = 1
    finalist_margin: float = 0.1
    final_channels: int = 8
    final_cells: int = 2
    final_epochs: int = 10
    final_lr: float = 0.2
    batch: int = 64
    warmup: float = 0.1
    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0


PROTOCOLS = {protocol.name: protocol for protocol in (Quick(), Fast(), Gpu(), Darts(), Bench())}


def named_protocol(name: str) -> Protocol:
    """The protocol called ``name``. Raises InputError for an unknown one."""
    if name not in PROTOCOLS:
        raise suggest(name, PROTOCOLS, "protocol")
    return PROTOCOLS[name]
