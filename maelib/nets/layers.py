"""Weight-normalised layers, their masked forms, and data-dependent initialisation.

Weight normalisation (Salimans & Kingma, 2016) writes each output unit's weight as a direction
and a length, w = gain * direction / |direction|. A mask is applied to the direction, before its
length is taken, so a masked weight neither acts nor counts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class WeightNorm(nn.Module):
    """What all layers here share: ``direction``, ``gain`` and ``bias``, and their initialisation.

    ``init_scale`` is the standard deviation that data-dependent initialisation gives each output
    channel. Before that, directions are N(0, 0.05^2) and gains are the directions' own lengths.
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

    def __init__(
        self, inputs: int, outputs: int, mask: Tensor | None = None, init_scale: float = 1.0
    ):
        super().__init__((outputs, inputs), mask, init_scale)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        return F.linear(x, self.weight, self.bias)


class Conv2d(WeightNorm):
    """Weight-normalised 2-d convolution with square kernels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        init_scale: float = 1.0,
    ):
        super().__init__((outputs, inputs, kernel, kernel), init_scale=init_scale)
        self.stride, self.padding = stride, padding

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        if self.direction.shape[-1] == 1 and self.padding == 0:
            # oneDNN's strided 1x1 convolution overruns its workspace on fewer than 8 channels-last
            # inputs (uxlfoundation/oneDNN issue 6035). Convolving every stride-th pixel is the same.
            return F.conv2d(x[..., :: self.stride, :: self.stride], self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose2d(WeightNorm):
    """Weight-normalised transposed convolution with square kernels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
    ):
        super().__init__((outputs, inputs, kernel, kernel))
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        if self.direction.shape[-1] == 1 and self.padding == 0:
            return self._upsample(F.conv2d(x, self.weight)) + self.bias[:, None, None]
        weight = self.weight.transpose(0, 1)
        return F.conv_transpose2d(
            x, weight, self.bias, self.stride, self.padding, self.output_padding
        )

    def _upsample(self, h: Tensor) -> Tensor:
        """Every pixel of ``h``, ``stride`` apart in zeros: see ``Conv2d`` for why not by oneDNN."""
        height, width = ((n - 1) * self.stride + 1 + self.output_padding for n in h.shape[2:])
        spaced = h.new_zeros(*h.shape[:2], height, width)
        spaced[..., :: self.stride, :: self.stride] = h
        return spaced


class MaskedConv2d(WeightNorm):
    """Causal convolution: a pixel sees those above it and those to its left, in raster order.

    With ``mask_type`` "B" (van den Oord et al., 2016) a pixel also sees itself; with "A" it does
    not. The last ``unmasked_channels`` input channels are side information, which every pixel sees
    whole. Without them the kernel's rows below the middle are all masked. Those rows are not
    stored, which leaves the function as it is and saves their cost.
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
        mask = mask[None, :, :rows].clone()
        super().__init__((outputs, inputs, rows, kernel), mask, init_scale)
        self.kernel = kernel

    def pad(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch inputs h2 w2"]:
        """``x`` with the zero border that makes the output as large as ``x``."""
        side, rows = self.kernel // 2, self.direction.shape[2]
        return F.pad(x, (side, side, side, rows - 1 - side))

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h w"]:
        return F.conv2d(self.pad(x), self.weight, self.bias)


class ShiftedConv2d(WeightNorm):
    """Convolution that looks up and to both sides or, with ``corner``, up and to the left.

    The kernel's last row is the pixel's own; with ``corner`` its last column too, else its middle
    one. Causality comes from where the kernel lies, not from a mask (Salimans et al., 2017):
    a stack of these, its first outputs shifted down (or right) by one, has no blind spot.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        corner: bool = False,
        stride: int = 1,
        init_scale: float = 1.0,
    ):
        super().__init__((outputs, inputs, *kernel), init_scale=init_scale)
        rows, columns = kernel
        left = columns - 1 if corner else columns // 2
        self.border = (left, columns - 1 - left, rows - 1, 0)
        self.stride = stride

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        return F.conv2d(F.pad(x, self.border), self.weight, self.bias, self.stride)


class ShiftedConvTranspose2d(WeightNorm):
    """Doubles an image so that each pixel depends only on coarse ones above it (or to its left).

    The counterpart of a ``ShiftedConv2d`` of stride 2 with the same ``kernel`` and ``corner``.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, corner: bool = False):
        super().__init__((outputs, inputs, *kernel))
        self.first = 0 if corner else (kernel[1] - 1) // 2

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        weight = self.weight.transpose(0, 1)
        y = F.conv_transpose2d(x, weight, self.bias, stride=2, output_padding=1)
        return y[:, :, :height, self.first : self.first + width]


def shift_down(x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    """Every row moved one down; zeros enter at the top."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    """Every column moved one to the right; zeros enter at the left."""
    return F.pad(x, (1, 0))[:, :, :, :-1]


def elu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """ELU (Clevert et al., 2016): x where it is positive, else exp(x) - 1.

    In float32 on a CPU by ``exp``, which differs by less than 1e-7 and takes an eighth of the time
    of PyTorch's ``expm1``: that was half of a training step.
    """
    by_exp = x.device.type == "cpu" and x.dtype == torch.float32
    return EluByExp.apply(x) if by_exp else F.elu(x)


class EluByExp(torch.autograd.Function):
    """exp(x) - 1 is never below x, so the larger of x and exp(min(x, 0)) - 1 is ELU."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        y = torch.maximum(x, x.clamp(max=0).exp_().sub_(1))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, y)


def concat_elu(x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h w"]:
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
    """Within it no layer works out its weight anew, for thousands of passes without training."""
    held = layers(module)
    for layer in held:
        layer.fixed = layer.weight.detach()
    try:
        yield
    finally:
        for layer in held:
            layer.fixed = None


@torch.no_grad()
def initialise_from_data(module: nn.Module, run: Callable[[], object]) -> None:
    """Data-dependent initialisation (Salimans & Kingma, 2016) of every layer that ``run`` calls.

    ``run`` is one forward pass over a batch. As it reaches a layer, the layer's gain and bias are
    set so that each of its output channels has mean 0 and standard deviation ``init_scale`` over
    the batch. A channel without any spread (it sees nothing, or a constant) keeps its values.
    """
    hooks = [m.register_forward_hook(_normalise) for m in layers(module)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()


def layers(module: nn.Module) -> list[WeightNorm]:
    """All weight-normalised layers of ``module``."""
    return [m for m in module.modules() if isinstance(m, WeightNorm)]


def _normalise(layer: WeightNorm, _inputs: tuple, output: Tensor) -> Tensor:
    axes = [axis for axis in range(output.dim()) if axis != 1]
    mean, std = output.mean(axes), output.std(axes)
    varies = std > 1e-6
    scale = torch.where(varies, layer.init_scale / std, torch.ones_like(std))
    shift = torch.where(varies, mean, torch.zeros_like(mean))
    layer.gain.mul_(scale)
    layer.bias.copy_((layer.bias - shift) * scale)
    shape = (1, -1, *[1] * (output.dim() - 2))
    return (output - shift.view(shape)) * scale.view(shape)
