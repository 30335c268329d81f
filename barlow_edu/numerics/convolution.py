"""3 x 3 convolutions that end in a few pixels: the gradient of their weights as one matrix product.

The last stages of a residual net see 4 x 4 pixels or fewer. There oneDNN's bfloat16 kernel for the gradient of the
weights is slow. To copy every 3 x 3 neighbourhood into a row of a matrix ("im2col") costs little for so few
pixels, and then the gradient is one product. The forward pass and the gradient of the input stay oneDNN's.
Of a step on 32 x 32 pixels this saves 10 % with resnet18 and 4 % with small_resnet, measured with emulated
bfloat16 (``benchmarks/convolution.py``); in float32 nothing changes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW = 4  # pixels along each side of the output, at most


def weight_gradient(x: Tensor, grad: Tensor, stride: int) -> Tensor:
    """The gradient of the weights of a 3 x 3 convolution with padding 1.

    x: input (N, C, H, W), grad: gradient of the output (N, O, H', W') -> (O, C, 3, 3).
    """
    n, c, height, width = x.shape
    out, (rows, columns) = grad.shape[1], grad.shape[2:]
    grad = grad.permute(0, 2, 3, 1).reshape(-1, out)  # (N H' W', O)
    if height == width == 1:  # all but the centre of the kernel lies on the padding
        product = grad.new_zeros(out, c, 3, 3)
        product[:, :, 1, 1] = grad.T @ x.flatten(1)
        return product
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, H + 2, W + 2, C)
    image, line = (height + 2) * (width + 2) * c, (width + 2) * c
    # Three neighbours in a line, with all their channels, lie next to each other.
    patches = padded.as_strided(
        (n, rows, columns, 3, 3 * c), (image, stride * line, stride * c, line, 1)
    )
    product = grad.T @ patches.reshape(n * rows * columns, 9 * c)
    return product.view(out, 3, 3, c).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return torch.conv2d(x, weight, None, stride, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            s, one = [ctx.stride] * 2, [1, 1]
            grad_x = torch.ops.aten.convolution_backward(
                grad, x, weight, None, s, one, one, False, [0, 0], 1, [True, False, False]
            )[0]
        return grad_x, weight_gradient(x, grad, ctx.stride), None


class FewPixelConv2d(nn.Conv2d):
    """A 3 x 3 convolution, padding 1, no bias, that takes the short way where its output has few pixels."""

    def forward(self, x: Tensor) -> Tensor:
        if max(x.shape[2:]) > FEW * self.stride[0] or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        half = torch.get_autocast_dtype("cpu")
        return _Convolution.apply(x.to(half), self.weight.to(half), self.stride[0])


def shorten_convolutions(model: nn.Module) -> None:
    """Let every 3 x 3 convolution of ``model`` take the short way under autocast on the CPU, in place."""
    for m in model.modules():
        if type(m) is nn.Conv2d and _is_plain(m):
            m.__class__ = FewPixelConv2d


def _is_plain(m: nn.Conv2d) -> bool:
    shape = m.kernel_size, m.padding, m.dilation, m.groups, m.padding_mode
    square = m.stride[0] == m.stride[1]
    return shape == ((3, 3), (1, 1), (1, 1), 1, "zeros") and square and m.bias is None
