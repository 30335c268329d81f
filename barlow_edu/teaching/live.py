"""A world so small that it trains while one watches: that of ``explorer.LiveLambda``, for exercises and checkers.

A twin is 32 numbers. In eight of them the two views agree, from almost perfectly (correlation 0.98) to poorly
(0.6); in the other 24 they have nothing in common. The encoder is linear, z = x W, with W of (32, D), and sees a
fresh batch of N twins at every step. So everything about λ can be seen, and explained:

* λ = 0: nothing forbids copies, and every dimension becomes the most reliable signal;
* D of 8 or less: each dimension can have a signal of its own, and a λ of 0.1 to 10 gives each its own;
* D above 8: there are too few signals. A small λ shares them out, a large one makes dimensions fill themselves
  with what the views do not share, so that C_ii falls to 0: invariance breaks.
"""

import torch
from torch import Tensor

from barlow_edu.evaluation.spectra import rankme
from barlow_edu.loss import LossTerms, barlow_twins_loss, cross_correlation, loss_floor

SIGNALS, CHANNELS = 8, 32
BEST, WORST = 0.98, 0.6  # correlation between the views, of the first and of the last signal
LEARNING_RATE = 0.03


class LiveProblem:
    """Barlow Twins on the small world, one step at a time.

    ``lambd`` and ``batch_size`` may be changed between steps. After a step: ``c`` (D, D) of its batch, ``steps``
    done. Raises ValueError if dim < 1, batch_size < 2 or lambd < 0.
    """

    def __init__(self, dim: int = 24, batch_size: int = 256, lambd: float = 0.01, seed: int = 0):
        loss_floor(batch_size, dim, lambd)  # raises for what does not fit
        self.batch_size, self.lambd = batch_size, lambd
        self.reliability = torch.zeros(CHANNELS)
        self.reliability[:SIGNALS] = torch.linspace(BEST, WORST, SIGNALS)
        self.generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(CHANNELS, dim, generator=self.generator)
        self.weights = (weights / CHANNELS**0.5).requires_grad_()
        self.optimizer = torch.optim.Adam([self.weights], LEARNING_RATE, betas=(0.9, 0.95))
        self.steps = 0
        self.look()

    def twins(self) -> tuple[Tensor, Tensor]:
        """A fresh batch of both views, (N, 32) each: every channel has variance 1."""
        shape = (self.batch_size, CHANNELS)
        shared = self.reliability.sqrt() * torch.randn(shape, generator=self.generator)
        own = (1 - self.reliability).sqrt()
        return tuple(shared + own * torch.randn(shape, generator=self.generator) for _ in "ab")

    def embed(self) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D) of both views of a fresh batch."""
        return tuple(x @ self.weights for x in self.twins())

    def step(self) -> LossTerms:
        """One step of Adam on a fresh batch. Returns the loss of that batch and its parts, detached."""
        with torch.enable_grad():
            z_a, z_b = self.embed()
            terms = barlow_twins_loss(z_a, z_b, self.lambd)
            self.optimizer.zero_grad(set_to_none=True)
            terms.loss.backward()
        self.optimizer.step()
        self.steps += 1
        self.c = cross_correlation(z_a.detach(), z_b.detach())
        return LossTerms(*(term.detach() for term in terms))

    def look(self) -> None:
        """Measure ``c`` on a fresh batch, without a step."""
        with torch.no_grad():
            self.c = cross_correlation(*self.embed())

    def distinct(self) -> float:
        """How many different things the dimensions say: effective rank of their correlations, 1 to D.

        Exact, from the weights: all channels have variance 1, so dimension i and j of one view correlate with
        the cosine of columns i and j of W.
        """
        return rankme(torch.nn.functional.normalize(self.weights.detach().double(), dim=0))
