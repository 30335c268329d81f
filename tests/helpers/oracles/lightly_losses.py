"""Losses of lightly on seeded embeddings, kept in lightly_losses.json.

Run again where lightly is at hand: ``uv run --with lightly python tests/helpers/oracles/lightly_losses.py``.
The tests need only what is kept here; where lightly is installed they also compare live.
"""

import importlib.metadata
import json
from pathlib import Path

import torch

KEPT = Path(__file__).with_suffix(".json")
BARLOW_TWINS = [{"lambda_param": lambd} for lambd in (0.005, 0.1)]
SIMCLR = [{"temperature": t} for t in (0.1, 0.5)]
VICREG = [
    {"lambda_param": 25.0, "mu_param": 25.0, "nu_param": 1.0},
    {"lambda_param": 2.0, "mu_param": 3.0, "nu_param": 5.0},
]
CASES = [
    {"loss": loss, "settings": settings, "seed": seed, "shape": shape}
    for loss, choices in (
        ("simclr", SIMCLR),
        ("vicreg", VICREG),
        ("negative_cosine", [{}]),
        ("barlow_twins", BARLOW_TWINS),
    )
    for settings in choices
    for seed, shape in ((0, [12, 5]), (1, [6, 20]))
]


def embeddings(case):
    """Two related batches (N, D), float64. NumPy's generator: its numbers stay the same in every version."""
    import numpy as np

    n, d = case["shape"]
    z = np.random.RandomState(case["seed"]).standard_normal((2, n, d))
    return torch.from_numpy(0.7 * z[0] + 0.2), torch.from_numpy(0.5 * z[0] + 0.4 * z[1])


def of_lightly(case):
    """Lightly's loss for a case."""
    from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss

    kinds = {
        "simclr": NTXentLoss,
        "vicreg": VICRegLoss,
        "negative_cosine": NegativeCosineSimilarity,
        "barlow_twins": BarlowTwinsLoss,
    }
    return kinds[case["loss"]](**case["settings"])


def measured():
    """Every case with lightly's value and the length of its gradient for the first batch."""
    for case in CASES:
        z_a, z_b = embeddings(case)
        z_a.requires_grad_()
        value = of_lightly(case)(z_a, z_b)
        value.backward()
        yield {**case, "value": value.item(), "gradient_norm": z_a.grad.norm().item()}


if __name__ == "__main__":
    kept = {"lightly": importlib.metadata.version("lightly"), "cases": list(measured())}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{len(kept['cases'])} cases")
