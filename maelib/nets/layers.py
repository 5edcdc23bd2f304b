"""Weight-normalised layers, their masked forms, and data-dependent initialisation.

Weight normalisation (Salimans & Kingma, 2016) writes each output unit's weight as a direction
and a length, w = gain * direction / |direction|. A mask is applied to the direction before its
length is taken, so a masked weight is zero and does not count in the length.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maelib.internal.shapes import AnyShape, Maps, OtherMaps, ResizedMaps

Result = TypeVar("Result")
KERNEL_MIN_ELEMENTS = 2**20  # elements of feature maps that repay the seconds of compiling a kernel


class WeightNorm(nn.Module):
    """The base of all layers here: ``direction``, ``gain``, ``bias`` and their initial values.

    Directions start as N(0, 0.05^2), gains as their lengths. ``init_scale`` is the standard
    deviation that data-dependent initialisation gives each output channel.
    """

    mask: Tensor | None

    def __init__(self, shape: tuple[int, ...], mask: Tensor | None = None, init_scale: float = 1.0):
        super().__init__()
        self.init_scale = init_scale
        self.register_buffer("mask", mask, persistent=False)
        self.direction = nn.Parameter(0.05 * torch.randn(shape))
        self.gain = nn.Parameter(self._length().detach().clone())
        self.bias = nn.Parameter(torch.zeros(self.gain.shape))
        self.fixed: Tensor | None = None

    def _masked(self) -> Tensor:
        return self.direction if self.mask is None else self.direction * self.mask

    def _length(self) -> Tensor:
        # A unit that sees nothing has length 0; the floor keeps its (irrelevant) weight finite.
        return self._masked().square().flatten(1).sum(1).clamp(min=1e-12).sqrt()

    @property
    def weight(self) -> Tensor:
        """The effective weight, zero where masked."""
        if self.fixed is not None:
            return self.fixed
        scale = self.gain / self._length()
        return self._masked() * scale.view(-1, *[1] * (self.direction.dim() - 1))


class Linear(WeightNorm):
    """Weight-normalised linear layer; ``mask`` has the weight's shape [out, in]."""

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None = None, init_scale=1.0):
        super().__init__((outputs, inputs), mask, init_scale)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        return F.linear(x, self.weight, self.bias)


class Conv2d(WeightNorm):
    """Weight-normalised 2-d convolution with square kernels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride=1, padding=0):
        super().__init__((outputs, inputs, kernel, kernel))
        self.stride, self.padding = stride, padding

    def forward(self, x: Maps) -> ResizedMaps:
        if self.direction.shape[-1] == 1 and self.padding == 0:
            # oneDNN's strided 1x1 convolution overruns its workspace on fewer than 8 channels-last
            # inputs (uxlfoundation/oneDNN issue 6035). Convolving every stride-th pixel is equal.
            return F.conv2d(x[..., :: self.stride, :: self.stride], self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose2d(WeightNorm):
    """Weight-normalised transposed convolution with square kernels."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride=1, padding=0, output_padding=0
    ):
        super().__init__((outputs, inputs, kernel, kernel))
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Maps) -> ResizedMaps:
        if self.direction.shape[-1] == 1 and self.padding == 0:
            # As in ``Conv2d``: the results of all pixels are spaced ``stride`` apart in zeros.
            h = F.conv2d(x, self.weight)
            size = ((n - 1) * self.stride + 1 + self.output_padding for n in x.shape[2:])
            spaced = h.new_zeros(*h.shape[:2], *size)
            spaced[..., :: self.stride, :: self.stride] = h
            return spaced + self.bias[:, None, None]
        sizes = (self.stride, self.padding, self.output_padding)
        return F.conv_transpose2d(x, self.weight.transpose(0, 1), self.bias, *sizes)


class MaskedConv2d(WeightNorm):
    """Causal convolution: a pixel sees those above it and those to its left, in raster order.

    With ``mask_type`` "B" (van den Oord et al., 2016) a pixel also sees itself. The last
    ``unmasked_channels`` input channels are side information, which every pixel sees in full. If
    there are none, the kernel's rows below the middle are all masked and are not stored.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        mask_type: str,
        unmasked_channels: int = 0,
        init_scale: float = 1.0,
    ):
        mask = causal_mask(kernel, mask_type).expand(inputs, kernel, kernel).clone()
        mask[inputs - unmasked_channels :] = 1
        rows = kernel if unmasked_channels else kernel // 2 + 1
        super().__init__((outputs, inputs, rows, kernel), mask[None, :, :rows].clone(), init_scale)
        self.kernel = kernel

    def pad(self, x: Maps) -> Float[Tensor, "batch c h2 w2"]:
        """``x`` with the zero border that makes the output as large as ``x``."""
        side, rows = self.kernel // 2, self.direction.shape[2]
        return F.pad(x, (side, side, side, rows - 1 - side))

    def forward(self, x: Maps) -> OtherMaps:
        return F.conv2d(self.pad(x), self.weight, self.bias)


def elu(x: AnyShape) -> AnyShape:
    """ELU (Clevert et al., 2016): x where it is positive, else exp(x) - 1.

    On a CPU PyTorch's ``expm1`` takes half of a training step, and ``exp`` an eighth of its time.
    The two differ by less than 1e-7.
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
        return EluByExp.apply(x)
    return F.elu(x)


class EluByExp(torch.autograd.Function):
    """ELU whose gradient is computed from its result, so that its input need not be kept."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            y = _elu_in_one_pass(x)
        else:
            y = _elu_by_kernel(x) if x.numel() >= KERNEL_MIN_ELEMENTS else _elu_in_passes(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, y)


def _elu_in_one_pass(x: AnyShape) -> AnyShape:
    """ELU as it is compiled, with ``exp`` in float32.

    A comparison costs half of what ``maximum`` and ``clamp`` do, which pass NaN on.
    """
    return torch.where(x > 0, x.float(), x.float().exp() - 1).to(x.dtype)


def _elu_in_passes(x: AnyShape) -> AnyShape:
    """ELU without a compiler: exp(x) - 1 is never below x, so it is the larger of the two."""
    if x.dtype == torch.bfloat16:  # exp(x) would be rounded, and exp(x) - 1 be lost near zero
        return F.elu(x)
    return torch.maximum(x, x.clamp(max=0).exp_().sub_(1))


def _elu_by_kernel(x: AnyShape) -> AnyShape:
    """``_elu_kernel`` on x as one line of numbers, so that it is compiled for one shape alone."""
    is_nhwc = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    dense = x.detach() if is_nhwc else x.detach().contiguous()
    line = dense.as_strided((x.numel(),), (1,))
    return _elu_kernel(x.dtype)(line).as_strided(x.shape, dense.stride())


@cache
def _elu_kernel(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """``_elu_in_one_pass``, compiled; ``_elu_in_passes`` where nothing can compile it."""
    # The compiler's first use warns of a CUDA toolkit that it then leaves alone.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    compiled = torch.compile(_elu_in_one_pass, dynamic=True)
    try:
        compiled(torch.zeros(KERNEL_MIN_ELEMENTS, dtype=dtype))
    except Exception:  # what a missing or broken compiler raises is torch's private matter
        return _elu_in_passes
    return compiled


def in_float32(function: Callable[[Tensor], Result], x: Tensor) -> Result:
    """``function(x)`` outside autocast, for what bfloat16 would make inexact."""
    with torch.autocast(x.device.type, enabled=False):
        return function(x.to(torch.promote_types(x.dtype, torch.float32)))


def concat_elu(x: Maps) -> OtherMaps:
    """ELU of x and of -x, as twice the channels."""
    return elu(torch.cat([x, -x], 1))


def causal_mask(kernel: int, mask_type: str) -> Float[Tensor, "kernel kernel"]:
    """1 above the middle of a kernel and to the left of it, and in the middle for mask "B".

    ValueError if ``mask_type`` is neither "A" nor "B".
    """
    if mask_type not in ("A", "B"):
        raise ValueError(f"mask_type is {mask_type!r}; it must be A or B.")
    middle = kernel // 2
    mask = torch.zeros(kernel, kernel)
    mask[:middle] = 1
    mask[middle, : middle + (mask_type == "B")] = 1
    return mask


@contextmanager
def fixed_weights(module: nn.Module) -> Iterator[None]:
    """Context in which layers compute their weights only once, for many passes without training."""
    for layer in layers(module):
        layer.fixed = layer.weight.detach()
    try:
        yield
    finally:
        for layer in layers(module):
            layer.fixed = None


@torch.no_grad()
def initialise_from_data(module: nn.Module, run: Callable[[], object]) -> None:
    """Data-dependent initialisation (Salimans & Kingma, 2016) of every layer that ``run`` calls.

    ``run`` is one forward pass over a batch. The first time that it reaches a layer, gain and bias
    are set so that each output channel has mean 0 and standard deviation ``init_scale`` over the
    batch. A channel that does not vary keeps its values.
    """
    hooks = {}

    def once(layer: WeightNorm, _inputs: tuple, output: Tensor) -> Tensor:
        hooks.pop(layer).remove()
        return _normalised(layer, output)

    for layer in layers(module):
        hooks[layer] = layer.register_forward_hook(once)
    try:
        run()
    finally:
        for hook in hooks.values():
            hook.remove()


def layers(module: nn.Module) -> list[WeightNorm]:
    """All weight-normalised layers of ``module``."""
    return [m for m in module.modules() if isinstance(m, WeightNorm)]


def _normalised(layer: WeightNorm, output: Tensor) -> Tensor:
    """The output with mean 0 and the initial scale, and gain and bias that give it so."""
    axes = [axis for axis in range(output.dim()) if axis != 1]
    std = output.std(axes)
    scale = torch.where(std > 1e-6, layer.init_scale / std, 1.0)
    shift = torch.where(std > 1e-6, output.mean(axes), 0.0)
    layer.gain.mul_(scale)
    layer.bias.copy_((layer.bias - shift) * scale)
    shape = (1, -1, *[1] * (output.dim() - 2))
    return (output - shift.view(shape)) * scale.view(shape)
