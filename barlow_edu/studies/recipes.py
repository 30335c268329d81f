"""The rules behind the numbers of ``configs/``: λ from width and batch, learning rate from the batch.

A recipe is tuned at one width and one batch size. These rules carry it to others. They are starting points,
not laws; ``tests/studies/test_recipes.py`` checks that every packaged configuration follows them or says why not.
"""

# λ (D - 1) / (N - 1) of the paper: 0.005 at D = 8192, N = 2048 (section 3).
PAPER_SHARE = 0.02

# Learning rates at a batch of 256. lars: the paper's (section 3). adamw: Mixed Barlow Twins' published CIFAR
# scripts (Adam, 0.01). sgd: lightly's CIFAR-10 benchmark (0.06 at a batch of 128).
BASE_LR = {"adamw": 0.01, "lars": 0.2, "sgd": 0.12}


def noise_share(lambd: float, dim: int, batch_size: int) -> float:
    """What sampling noise alone costs off the diagonal, for each diagonal term: λ (D − 1) / (N − 1).

    Unrelated dimensions still correlate by chance in a batch of N, with mean square 1 / (N − 1). A row of C
    has D − 1 such entries beside one on the diagonal, whose term is at most about 1. Published settings: the
    paper 0.02; Barlow-Twins-HSIC 0.008, Mixed Barlow Twins 0.03, solo-learn 0.04 (all CIFAR-10); lightly's
    ImageNet run with a batch of 256 0.16. Raises ValueError for dim or batch_size below 2, or lambd below 0.
    """
    if dim < 2 or batch_size < 2 or lambd < 0:
        raise ValueError(
            "dim and batch_size must be at least 2 and lambd at least 0, got "
            f"dim={dim}, batch_size={batch_size}, lambd={lambd}."
        )
    return lambd * (dim - 1) / (batch_size - 1)


def lambda_for(dim: int, batch_size: int, share: float = PAPER_SHARE) -> float:
    """λ that keeps the paper's :func:`noise_share` at another width D and batch N.

    λ = share (N − 1) / (D − 1), two digits, at most 0.1: with few dimensions and many samples noise is no concern,
    and a λ near 1 only holds the encoder back. The rule is ours. At D of 16 to 1024 and N of 64 and 256 it was the
    best of five values in six cases of eight, at most two points of kNN behind (``data/runs/lambda_rule``). Long
    trainings may want more: ``garments_hero`` has 0.2, the rule says 0.08. The paper finds accuracy nearly flat
    from 0.002 to 0.02 (figure 5). Raises ValueError as :func:`noise_share` does, or if share is not above 0.
    """
    if not share > 0:
        raise ValueError(f"share must be above 0, got {share}.")
    lambd = share / noise_share(1.0, dim, batch_size)
    return min(0.1, float(f"{lambd:.2g}"))


def lr_for(batch_size: int, optimizer: str = "adamw", base: float | None = None) -> float:
    """Learning rate at a batch size: base · batch_size / 256, the linear rule (Goyal et al., 2017; paper, 3).

    base: the rate at a batch of 256; default, that of :data:`BASE_LR`. Far from 256 the rule overshoots: the
    authors' own retuned base rates fall from 0.7 at a batch of 128 to 0.2 at 2048 (their issue 7), so the
    rate itself grows more like the root. Raises ValueError for an optimizer without a base or a batch below 1.
    """
    if base is None and optimizer not in BASE_LR:
        raise ValueError(
            f"No base rate for {optimizer!r}. Known: {', '.join(BASE_LR)}. Give base=."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    return (BASE_LR[optimizer] if base is None else base) * batch_size / 256
