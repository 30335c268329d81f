"""Less memory for more arithmetic: activations computed a second time, and a large batch encoded part by part.

Both are exact. To add up the gradients of small batches would not be: C of 2048 images is not the mean of the Cs of
32 times 64 images, for every 64 have a mean and a variance of their own, their C has a rank of at most 63, and
the loss is a square of C. So the loss must see all embeddings at once. The encoder embeds the images part by
part and forgets the activations; the loss of the whole batch gives the gradient of every embedding; then each
part is encoded again, this time to pass its gradient on (Gao et al., 2021: a gradient cache). It takes an encoder in
which the images of a part do not depend on each other. With batch norm they do.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vision_transformer import EncoderBlock

from barlow_edu.numerics.batchnorm import untracked

BLOCKS = (BasicBlock, Bottleneck, EncoderBlock)


def save_memory(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Apply ``checkpoint_activations`` and ``micro_batch`` to ``model``, in place.

    checkpoint_activations: each block of the encoder keeps only its input and computes the rest again in the
    backward pass; the result is the same to the last bit. micro_batch: the encoder takes so many images at a time,
    twice; loss, projector and gradients are those of the whole batch. Raises ValueError if that cannot be exact,
    and for either of them together with compile.
    """
    parts = config["micro_batch"]
    if not (config["checkpoint_activations"] or parts):
        return
    if config["compile"]:
        raise ValueError(
            "compile=True does not go together with checkpoint_activations or micro_batch: the compiler decides "
            "itself what to keep. Set compile=False."
        )
    if parts and any(isinstance(m, _BatchNorm) for m in model.encoder.modules()):
        raise ValueError(
            f"micro_batch={parts} cannot be exact with encoder={config['encoder']}: its batch norm takes mean and "
            f"variance from the images that it sees together, {parts} and not {config['batch_size']}. To save "
            "memory set checkpoint_activations=True, share the batch among more processes, or take an encoder "
            "without batch norm (vit_tiny, vit_small)."
        )
    if config["checkpoint_activations"]:
        blocks = [m for m in model.encoder.modules() if isinstance(m, BLOCKS)]
        for m in blocks or [model.encoder]:
            m.forward = _recomputed(m, m.forward)
    if parts:
        encode = _recomputed(model.encoder, model.encoder.forward)
        model.encoder.forward = lambda x: torch.cat([encode(part) for part in x.split(parts)])


def _recomputed(module: nn.Module, forward: Callable[[Tensor], Tensor]):
    """``forward``, whose activations the backward pass computes again; running averages are updated only once."""

    def run(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(x)
        # Two contexts: of the first pass, and of the second, which must not count the batch again.
        contexts = {"context_fn": lambda: (nullcontext(), untracked(module))}
        return checkpoint(forward, x, use_reentrant=False, **contexts)

    return run
