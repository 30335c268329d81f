"""Features of images and of every layer, against the modules run by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyEncoder, tiny_images
from torch import nn

import barlow_edu as be
from barlow_edu.evaluation.features import layer_names


def normalize(images):
    return images.float() / 255


def test_batching_does_not_matter():
    encoder, images = TinyEncoder(), tiny_images(23).images
    whole = be.extract_features(encoder, images, normalize)
    assert whole.shape == (23, 12) and whole.dtype == torch.float32
    assert not whole.requires_grad
    for batch_size in (1, 10, 23):
        parts = be.extract_features(encoder, images, normalize, batch_size)
        torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(whole, encoder.eval()(normalize(images)).detach())


def test_the_encoder_is_left_as_it_was():
    encoder = TinyEncoder()
    encoder.body[1].eval()  # somebody froze it
    before = copy.deepcopy(encoder.state_dict())
    modes = [m.training for m in encoder.modules()]
    be.extract_features(encoder, tiny_images(20).images, normalize)
    assert (
        [m.training for m in encoder.modules()] == modes == [True, True, True, False] + [True] * 4
    )
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_the_encoder_is_left_as_it_was_when_it_fails():
    encoder = TinyEncoder()
    with pytest.raises(RuntimeError):
        be.extract_features(encoder, tiny_images(4).images, lambda x: x.float()[:, :1])
    assert encoder.training and encoder.body[1].training


def test_a_function_is_an_encoder_too():
    images = tiny_images(7).images
    found = be.extract_features(lambda x: x.flatten(1), images, normalize)
    assert torch.equal(found, be.pixel_features(images))
    assert be.extract_features(nn.Flatten(), images, normalize).shape == (7, 768)


def test_pixels_are_between_zero_and_one():
    pixels = be.pixel_features(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1))
    torch.testing.assert_close(pixels, torch.tensor([[0, 0.2, 1]]))


# layers


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = {"encoder": "small_resnet", "stem": "cifar", "image_size": 32, "proj_dim": 16}
    return be.BarlowTwinsModel(config)


def test_every_layer_from_the_stem_to_the_embedding(model):
    found = be.layer_features(model, tiny_images(9, size=32).images, normalize)
    widths = {name: x.shape for name, x in found.items()}
    assert widths == {
        "encoder.stem": (9, 24 * 4),
        "encoder.blocks.0": (9, 24 * 4),
        "encoder.blocks.1": (9, 48 * 4),
        "encoder.blocks.2": (9, 96 * 4),
        "encoder.blocks.3": (9, 192 * 4),
        "encoder": (9, 192),
        "projector.2": (9, 16),
        "projector.5": (9, 16),
        "output": (9, 16),
    }


def test_layers_are_what_the_modules_give_one_after_the_other(model):
    images = tiny_images(9, size=32).images
    found = be.layer_features(model, images, normalize, batch_size=4)
    model.eval()
    with torch.no_grad():
        x = model.encoder.stem(normalize(images))
        torch.testing.assert_close(found["encoder.stem"], F.avg_pool2d(x, 8).flatten(1))
        for i, block in enumerate(model.encoder.blocks):
            x = block(x)
            fields = F.avg_pool2d(x, x.shape[-1] // 2).flatten(1)
            torch.testing.assert_close(found[f"encoder.blocks.{i}"], fields)
        h = x.mean((2, 3))
        torch.testing.assert_close(found["encoder"], h)
        for i, part in enumerate(model.projector):
            h = part(h.clone())
            if f"projector.{i}" in found:
                torch.testing.assert_close(found[f"projector.{i}"], h.clone())
        torch.testing.assert_close(found["output"], h)


def test_a_layer_that_is_written_over_in_place_is_seen_as_it_was():
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.ReLU(inplace=True))
    images = tiny_images(20).images
    found = be.layer_features(net, images, normalize, ["1"])
    assert (found["1"] < 0).any() and torch.equal(found["1"].relu(), found["output"])


def test_no_hook_is_left_and_the_mode_is_what_it_was(model):
    model.train()
    be.layer_features(model, tiny_images(4, size=32).images, normalize, ["encoder"])
    assert model.training and model.encoder.blocks.training
    with pytest.raises(ValueError, match="No|no layer"):
        be.layer_features(model, tiny_images(4).images, normalize, ["nowhere"])
    assert not any(m._forward_hooks for m in model.modules())


def test_tokens_of_a_vision_transformer_are_averaged():
    net = be.build_encoder("vit_tiny", "cifar", 32)[0]
    found = be.layer_features(net, tiny_images(2, size=32).images, normalize, ["encoder"])
    assert found["encoder"].shape == (2, 192)
    assert layer_names(net) == ["conv_proj", "encoder"]


def test_stages_of_a_resnet():
    net = be.build_encoder("resnet18", "cifar")[0]
    assert layer_names(net) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("net", "layers", "message"),
    [
        (TinyEncoder(), ["head"], "no layer 'head'. Some it has: body, body.0"),
        (nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Flatten()), ["0"], "gives shape .* Name other"),
    ],
)
def test_layers_that_cannot_be_looked_at_are_told(net, layers, message):
    with pytest.raises(ValueError, match=message):
        be.layer_features(net, tiny_images(4).images, normalize, layers)
