"""A world in which a training takes a tenth of a second: few images, an encoder of a few parameters."""

import pytest
from tiny import CONFIG, tiny_encoder, tiny_images

SETS = {"train": tiny_images(100, size=20), "test": tiny_images(48, size=20, seed=1)}


def load(name, root, split, limit):
    return SETS[split] if limit is None else SETS[split].subset(slice(limit))


@pytest.fixture(scope="session")
def tiny_settings():
    """What makes a packaged configuration tiny."""
    sizes = {key: CONFIG[key] for key in ("encoder", "image_size", "proj_dim", "precision")}
    return {**sizes, "limit": 64, "batch_size": 16, "epochs": 1}


@pytest.fixture(scope="module")
def tiny_world():
    """The images and the encoder; yields the image sets by split."""
    with tiny_encoder(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("barlow_edu.studies.measure.load_cached", load)
        yield SETS
