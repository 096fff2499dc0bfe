"""Layers that mix the circuits of a library: the differentiable choice of the multiplier."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spaces.arithmetic import emulate
from spaces.arithmetic.convolution import cleared, counts, product_gradients, zero_point_share
from spaces.arithmetic.depthwise import DepthwiseMixture
from spaces.arithmetic.engines.cpu import depthwise_convolution as depthwise
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import mixture as gpu_mixtures
from spaces.arithmetic.engines.gpu import weights as gpu_weights
from spaces.arithmetic.engines.mixture import mixture as mixtures
from spaces.arithmetic.engines.mixture import pointwise
from spaces.arithmetic.gradients import gradient_factors
from spaces.arithmetic.kernel_mixture import KernelMixture
from spaces.arithmetic.layers import activation_scale, pad_if_needed, without_unread
from spaces.arithmetic.pointwise import PointwiseMixture
from spaces.arithmetic.precision import mixtures_compute_in_fp32, plain_fp32
from spaces.arithmetic.quantise import LARGEST_CODE, SMALLEST_SCALE, Codes, is_dense, quantise_once, weight_codes
from spaces.arithmetic.undilated import Undilated
from spaces.errors import InputError
from spaces.multipliers.factors import shared_basis
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import WEIGHT_ZERO, ProductTable, layer_table


class MultiplierChoice(nn.Module):
    """The probabilities β with which a group of layers uses each circuit of a library, as one blended table.

    With the library's shared basis T_m = U_m V, the blend Σ_m β_m T_m = (Σ_m β_m U_m) V is the table of one more
    "circuit" of rank R.
    """

    def __init__(self, library: Sequence[Multiplier]) -> None:
        super().__init__()
        if len({multiplier.signed for multiplier in library}) > 1:
            raise InputError("signed and unsigned multipliers cannot be mixed")
        self.signed = library[0].signed
        self.tables = tuple(layer_table(multiplier) for multiplier in library)
        u, v = shared_basis(self.tables)
        self.register_buffer("u", torch.tensor(u.transpose(0, 2, 1).copy(), dtype=torch.float32), persistent=False)
        self.register_buffer("v", torch.tensor(v, dtype=torch.float32), persistent=False)
        self._moving = [
            bool(each) for each in np.any(u, axis=(0, 2))
        ]  # of 256 activation codes, whether they add something
        self._moves_any = any(self._moving)
        self.v_of_weights = np.ascontiguousarray(v.T, dtype=np.float32)  # (256, R), for loops on the CPU
        self.register_buffer("span", torch.from_numpy(_span(self.tables)), persistent=False)
        self.blended: Tensor | None = None  # (R, 256)
        # For kernels on a GPU, if they hold so many features: by code, and every U_m along the columns of the span.
        few = self.features <= gpu_mixtures.MOST_FEATURES
        for name, rows in (("v_by_code", self.v), ("span_by_code", self.span.t())):
            self.register_buffer(name, gpu_mixtures.features_by_code(rows) if few else None, persistent=False)
        along = torch.tensor(np.einsum("mar,ak->mrk", u, _span(self.tables)), dtype=torch.float32) if few else None
        self.register_buffer("along_span", along, persistent=False)  # (M, R, K)
        self.u_by_code: Tensor | None = None
        self.coordinates: Tensor | None = None  # (R, K) of the blend along the span
        self.basis: gpu_mixtures.Basis  # what kernels know of the library, once there are coordinates

    def set(self, probabilities: Tensor) -> None:
        """Blend for probabilities (M,); differentiable. To be called before the layers run."""
        with plain_fp32(self.u.device):
            self.blended = torch.einsum("m,mra->ra", probabilities, self.u)
            if self.along_span is not None and gpu_mixtures.works_on(self.u.device):
                self.u_by_code = gpu_mixtures.features_by_code(self.blended.detach())
                self.coordinates = torch.einsum("m,mrk->rk", probabilities, self.along_span)
                self.basis = gpu_mixtures.Basis(self.v_by_code, self.span_by_code, len(self.v), self.span.shape[1])

    @property
    def features(self) -> int:
        """What kernels have to hold for a code: its features, or where it lies in their span."""
        return max(self.u.shape[1], self.span.shape[1])

    def moves(self, index: int | Tensor) -> bool:
        """Whether any circuit makes something other than zero of the activation ``index``, or may, where that is on a GPU."""
        return self._moves_any if isinstance(index, Tensor) else self._moving[index]


@functools.lru_cache(maxsize=64)
def _span(library: tuple[ProductTable, ...]) -> np.ndarray:
    """Orthonormal columns (256, K), float32, of which every U_m's are combinations."""
    left, sizes, _ = np.linalg.svd(np.hstack(list(shared_basis(library)[0])).astype(np.float64), full_matrices=False)
    return np.ascontiguousarray(left[:, sizes > 1e-9 * sizes[0]].astype(np.float32))


class MultiplierMixture(nn.Conv2d):
    """A convolution whose products are the mixture Σ_m β_m T_m of a library, at the cost of one, however many there are.

    ``choice`` holds β and may be shared between layers. Gradients with respect to β are exact: those of the sum of M
    separate convolutions.
    """

    def __init__(self, *args: Any, choice: MultiplierChoice, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.choice = choice
        self.activation_scale = activation_scale(choice.signed)
        self.coded: tuple[tuple[int, int], gpu_mixtures.Weights] | None = None  # of one version of the weight

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) → (N, O, H', W'); ``choice.set`` must have been called.

        Raises InputError for another number of channels, which loops over codes do not check.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise InputError(f"the input must be (N, {self.in_channels}, H, W), not {tuple(x.shape)}")
        if mixtures_compute_in_fp32():
            return super().forward(x)
        x, geometry = pad_if_needed(self, x)
        scale = self.activation_scale(x)
        x, geometry = without_unread(x, self.weight, geometry)
        codes = quantise_once(x, scale)
        kind = _kind(tuple(self.weight.shape), geometry, x.device, self.choice.features)
        if kind is KernelMixture:
            if self.choice.coordinates is None:
                raise InputError("probabilities must be set on the device on which a layer computes")
            weights = self.coded[1] if self.coded is not None and self.coded[0] == _version(self.weight) else None
            self.coded = None  # for one pass: not all that changes a weight counts its versions
            y = kind.apply(x, self.weight, self.choice.coordinates, codes, self.choice, geometry, weights)
        else:
            y = kind.apply(x, self.weight, self.choice.blended, codes, self.choice, geometry)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def _version(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), weight._version


class MultiplierChoices(nn.ModuleList):
    """All choices of a network over one library, a row of β each."""

    def __init__(self, choices: Iterable[MultiplierChoice]) -> None:
        super().__init__(choices)
        self._layers: list[MultiplierMixture] = []  # those whose weights are coded together
        self._together: gpu_weights.WeightsTogether | None = None

    def set_all(self, probabilities: Tensor, net: nn.Module) -> None:
        """Blend for probabilities (rows, M); differentiable. To be called before a pass of the network ``net``.

        On a GPU, the weights of all its layers become codes and features for that pass here, which take two launches together.
        """
        for choice, row in zip(self, probabilities):
            choice.set(row)
        if self[0].coordinates is not None and gpu_weights.works_on(probabilities.device):
            self._code_weights(net)

    @torch.no_grad()
    def _code_weights(self, net: nn.Module) -> None:
        weights, basis = [layer.weight.detach() for layer in self._layers], self[0].basis
        if self._together is None or not self._together.know(weights):
            self._layers = [layer for layer in net.modules() if isinstance(layer, MultiplierMixture) and _suits(layer)]
            weights, depthwise = (
                [layer.weight.detach() for layer in self._layers],
                [layer.groups > 1 for layer in self._layers],
            )
            self._together = gpu_weights.WeightsTogether(weights, depthwise, basis.v)
        found = self._together(weights, basis.v, LARGEST_CODE, float(SMALLEST_SCALE), WEIGHT_ZERO)
        for layer, coded in zip(self._layers, found):
            layer.coded = (_version(layer.weight), coded)


def _suits(layer: MultiplierMixture) -> bool:
    """Whether kernels that take a layer's weight as it lies in the memory compute it."""
    geometry = Geometry(groups=layer.groups)
    ordinary = gpu_mixtures.suits(layer.weight.device, layer.choice.features, tuple(layer.weight.shape), geometry)
    return ordinary and layer.weight.dtype == torch.float32 and is_dense(layer.weight)


def _kind(
    w_shape: tuple[int, ...], geometry: Geometry, device: torch.device, features: int
) -> type[torch.autograd.Function]:
    """What computes a layer with weights (O, C/groups, kH, kW)."""
    by_kernels = emulate.mixture_engine() in ("auto", "triton")
    if by_kernels and gpu_mixtures.suits(device, features, w_shape, geometry):
        return KernelMixture
    if emulate.mixture_engine() != "float32":
        if depthwise.suit(w_shape, geometry, device):
            return DepthwiseMixture
        if pointwise.suit(w_shape, geometry, device):
            return PointwiseMixture
    return _Mixture


class _Mixture(torch.autograd.Function):
    """Forward: the blend's sums, scaled. Backward: straight-through, and exact for the blended table."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        blended: Tensor,
        codes: Codes,
        choice: MultiplierChoice,
        geometry: Geometry,
    ) -> Tensor:
        w_index, w_scale = weight_codes(weight)
        kernel, ctx.padding = tuple(weight.shape[2:]), (0, 0)
        # Whether the code of zero adds something, also where it pads.
        border = codes.scale.zero if choice.moves(codes.scale.zero) else None
        scale = codes.scale.step * w_scale  # comes last, so that one circuit's sums are as exact as in its own layer
        size = geometry.output_size(x.shape[2:], kernel)
        ctx.undilated = Undilated.of(x.shape, (len(x), len(weight), *size), geometry)
        index, ctx.geometry = ctx.undilated.split_input(codes.index), ctx.undilated.geometry
        if border is not None:
            ctx.padding, index = ctx.geometry.padding, ctx.geometry.pad(index, border)
            ctx.geometry = ctx.geometry.unpadded()
        y = mixtures.convolve(
            index, blended.detach().float(), mixtures.weight_features(w_index, choice.v), ctx.geometry
        )
        y.mul_(scale.view(1, -1, 1, 1))
        ctx.zero_point = codes.scale.zero + choice.tables[0].a_lo
        if counts(ctx.zero_point):
            y.sub_(zero_point_share(w_index, scale, ctx.zero_point).view(1, -1, 1, 1))
        ctx.save_for_backward(index, codes.clamped, codes.scale.step, w_index, w_scale)
        ctx.choice, ctx.dtypes = choice, (x.dtype, weight.dtype)
        return ctx.undilated.join_output(y).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, clamped, step, w_index, w_scale = ctx.saved_tensors
        x_wanted, w_wanted, blend_wanted = ctx.needs_input_grad[:3]
        grad, grad_blended, grad_x = ctx.undilated.split_output(grad.float()), None, None
        if blend_wanted:
            row = 0 if x_wanted else None  # the first basis row is ŵ itself
            scaled = mixtures.weight_features(w_index, ctx.choice.v) * w_scale.view(-1, 1, 1, 1, 1)
            grad_blended, grad_x = mixtures.gradients(index, grad, scaled, ctx.geometry, row, ctx.choice.span)
            grad_blended.mul_(step)
        factors = gradient_factors(ctx.choice.tables[0], "straight-through")
        wanted = (x_wanted and grad_x is None, w_wanted)
        more_x, grad_w = product_gradients(
            grad, index, step, w_index, w_scale, factors, ctx.zero_point, ctx.geometry, wanted
        )
        grad_x = more_x if grad_x is None else grad_x
        if grad_x is not None:
            top, left = ctx.padding
            grad_x = grad_x[:, :, top : grad_x.shape[2] - top, left : grad_x.shape[3] - left]
            grad_x = cleared(ctx.undilated.join_input(grad_x), clamped).to(ctx.dtypes[0])
        if grad_w is not None:
            grad_w = grad_w.to(ctx.dtypes[1])
        return grad_x, grad_w, grad_blended, None, None, None
