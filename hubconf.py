"""For ``torch.hub.load("OWNER/barlow_edu", "encoder", "garments_hero")``: encoders, ready to use."""

dependencies = [
    "torch",
    "torchvision",
    "numpy",
    "yaml",
    "tqdm",
    "filelock",
    "safetensors",
    "sklearn",
]


def encoder(run="garments_hero"):
    """The encoder of a recorded run or of a run's folder: normalised images (N, 3, H, W) -> features (N, dim)."""
    from barlow_edu.runs import load_run

    return load_run(run).load_model().encoder


def weights(path):
    """What a file of weights holds: the authors', or of torchvision, timm, solo-learn, lightly or VICReg."""
    from barlow_edu.scale.official import load_official

    return load_official(path)
