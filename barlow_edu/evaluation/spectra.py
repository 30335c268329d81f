"""How many directions do features use, and how far is C from the identity?"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

RANKME_EPSILON = 1e-7  # Garrido et al., eq. 1
LARGE = 512  # rows and columns
PAIRS = 2048  # of C
DECAY_RANKS = (5, 50)  # first and last rank of the fit, counted from 1


def effective_rank(features: Tensor | np.ndarray) -> float:
    """exp(entropy) of the normalised singular values of the centred features (N, dim).

    Between 1 (one direction holds all) and min(N - 1, dim) (all directions alike). Roy and Vetterli, 2007;
    without centring it is ``rankme``. Raises ValueError unless 2-D and finite.

    >>> round(effective_rank(torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])), 3)
    2.0
    """
    x = _table(features)
    values = _singular_values(x - x.mean(0))
    if values.sum() <= 1e-12 * x.abs().max() * len(x):
        return 1.0  # all rows alike
    return float(torch.special.entr(values / values.sum()).sum().exp())


def rankme(features: Tensor | np.ndarray) -> float:
    """RankMe: exp(entropy) of the normalised singular values of the features (N, dim), not centred.

    Garrido et al., ICML 2023, eq. 1 and 2, which take the embeddings as they are. A large common mean is
    one more direction, and a strong one: RankMe is then far below the effective rank of the centred
    features. Raises ValueError unless 2-D and finite.

    >>> round(rankme(torch.eye(3)), 3)
    3.0
    """
    values = _singular_values(_table(features))
    p = values / values.sum() + RANKME_EPSILON
    return float(torch.special.entr(p).sum().exp()) if values.sum() > 0 else 1.0


def covariance_spectrum(features: Tensor | np.ndarray) -> Tensor:
    """Eigenvalues of the covariance of the features (N, dim), largest first: (dim,), float64.

    Divided by N. Raises ValueError unless 2-D and finite.

    >>> covariance_spectrum(torch.tensor([[2.0, 1], [2, -1], [-2, 1], [-2, -1]]))
    tensor([4., 1.], dtype=torch.float64)
    """
    x = _table(features)
    values = _singular_values(x - x.mean(0)).square() / len(x)
    return torch.cat([values, values.new_zeros(x.shape[1] - len(values))])


class Identity(NamedTuple):
    """How near a cross-correlation matrix C (D, D) is to the identity, see ``distance_to_identity``."""

    distance: float  # ‖C − I‖_F / √D
    diagonal: float  # mean of C_ii
    rms: float  # root mean square of C_ij off the diagonal
    floor: float  # what rms is by chance, 1 / √(N − 1)


def distance_to_identity(c: Tensor | np.ndarray, pairs: int) -> Identity:
    """How near C (D, D) is to the identity, and how much of the rest is the noise of so many ``pairs``.

    distance² = mean (1 − C_ii)² + (D − 1) rms², so the distance grows with D where rms does not. Dimensions that
    have nothing to do with each other still have rms = floor. Raises ValueError unless C is square and finite, and
    for fewer than two pairs.

    >>> distance_to_identity(torch.tensor([[0.5, 0.0], [0.0, 0.5]]), pairs=101)
    Identity(distance=0.5, diagonal=0.5, rms=0.0, floor=0.1)
    """
    x = _table(c)
    if x.shape[0] != x.shape[1] or pairs < 2:
        raise ValueError(
            f"C must be square and of two pairs at least, got {tuple(x.shape)} of {pairs}."
        )
    d, diagonal = len(x), x.diagonal()
    off = (x.square().sum() - diagonal.square().sum()).clamp(min=0)
    distance = ((1 - diagonal).square().sum() + off).div(d).sqrt()
    rms = (off / max(1, d * (d - 1))).sqrt()
    return Identity(float(distance), float(diagonal.mean()), float(rms), (pairs - 1) ** -0.5)


def identity_of(run: Any, images: Any, device: torch.device | str = "cpu") -> dict[str, Any]:
    """``distance_to_identity`` of C of a run's model, and of its untrained twin, on up to 2,048 pairs of views."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(len(images), generator=generator)[:PAIRS]
    twins = run.views().of_batch(images.load(rows), device, generator)
    near = {"pairs": len(rows), "dim": run.config["proj_dim"]}
    for name, weights in (("untrained", False), ("trained", True)):
        c = run.load_model(weights).to(device).cross_correlation(*twins)
        numbers = distance_to_identity(c, len(rows))._asdict()
        near[name] = {key: round(value, 4) for key, value in numbers.items()}
    return near


class Decay(NamedTuple):
    """A power law fitted to a spectrum: eigenvalue of rank i ~ i^-alpha."""

    alpha: float
    r2: float
    first: int
    last: int


def spectrum_decay(
    features: Tensor | np.ndarray, first: int | None = None, last: int | None = None
) -> Decay:
    """Decay exponent alpha of the covariance spectrum of features (N, dim): lambda_i ~ i^-alpha.

    The slope of a least-squares line through (log i, log lambda_i) for the ranks ``first`` to ``last``,
    both included and counted from 1; default 5 to 50, or to three quarters of what features of that shape
    can have, if that is less. The first ranks and the tail seldom follow the law, so alpha depends on
    the range: give it with every alpha. r2 says how straight the line is. Agrawal et al. (alpha-ReQ),
    NeurIPS 2022, after Stringer et al., Nature 2019.

    Raises ValueError if features are not 2-D and finite, if the range does not fit, or if an eigenvalue in
    it is zero (a collapse: see ``effective_rank``).

    >>> x = torch.cat([torch.eye(8), -torch.eye(8)]) / torch.arange(1, 9)  # eigenvalues ~ i^-2
    >>> round(spectrum_decay(x).alpha, 3)
    2.0
    """
    values = covariance_spectrum(features)
    possible = min(len(features) - 1, len(values))
    last = min(DECAY_RANKS[1], 3 * possible // 4) if last is None else last
    first = min(DECAY_RANKS[0], max(1, last // 4)) if first is None else first
    if not 1 <= first < last <= possible:
        raise ValueError(
            f"The fit needs ranks 1 <= first < last <= {possible} for features of shape "
            f"{tuple(features.shape)}, got {first} to {last}. Take more images, or another range."
        )
    values = values[first - 1 : last]
    if values[-1] <= 1e-12 * values[0]:
        raise ValueError(
            f"Eigenvalues up to rank {last} are zero, so no power law fits: the features have collapsed "
            "onto fewer directions. Take a smaller last, and look at effective_rank."
        )
    x, y = torch.arange(first, last + 1).double().log(), values.log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    r2 = (slope * (x @ y) / (y @ y)).clamp(max=1.0) if y @ y > 1e-20 else torch.tensor(1.0)
    return Decay(float(-slope), float(r2), first, last)


def _singular_values(x: Tensor) -> Tensor:
    """Singular values of (N, dim), largest first; of large tables as roots of the Gram matrix's eigenvalues.

    That is several times faster, and exact to 1e-8 of the largest: enough for an entropy.
    """
    if min(x.shape) <= LARGE:
        return torch.linalg.svdvals(x)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def _table(features: Tensor | np.ndarray) -> Tensor:
    """(N, dim) in float64. Raises ValueError unless 2-D, N of 2 or more, and finite."""
    x = torch.as_tensor(features).detach()
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features must be (N, dim) with N of 2 or more, got {tuple(x.shape)}.")
    if not torch.isfinite(x).all():
        raise ValueError("features hold NaN or infinity: did training diverge?")
    return x.double()


def summary(x: Tensor) -> dict[str, float | None]:
    """Both ranks of features x (N, dim), and the decay of their spectrum, None where it follows no power law."""
    ranks = {"effective_rank": effective_rank(x), "rankme": rankme(x)}
    try:
        return ranks | {"alpha": spectrum_decay(x).alpha}
    except ValueError:  # too few images, or a collapse: no power law
        return ranks | {"alpha": None}
