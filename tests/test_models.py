"""Encoders, the projector and the model, against torchvision, numpy and counts made by hand."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from tiny import TinyEncoder
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import barlow_edu as be
from barlow_edu.models import BRANCH_START, ENCODERS, build_encoder
from barlow_edu.numerics import optim
from barlow_edu.numerics.batchnorm import batch_statistics


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors gain nothing from more, and busy machines lose much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, *arguments, **options):
    """Build a module without memory for its weights."""
    with torch.device("meta"):
        return build(*arguments, **options)


# encoders

WIDTHS = {
    "small_resnet": 192,
    "small_resnet_wide": 384,
    "narrow_resnet": 96,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "vit_tiny": 192,
    "vit_small": 384,
}


def test_every_encoder_is_tested():
    assert set(WIDTHS) == set(ENCODERS)


@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("imagenet", 64)])
@pytest.mark.parametrize("name", WIDTHS)
def test_encoders_return_features_of_their_width(name, stem, size):
    net, dim = on_meta(build_encoder, name, stem, size)
    assert dim == WIDTHS[name]
    features = net(torch.empty(2, 3, size, size, device="meta"))
    assert features.shape == (2, dim)


@pytest.mark.parametrize(
    ("name", "stem", "parameters"),
    [
        # torchvision's published counts, less the 1000-class head
        ("resnet18", "imagenet", 11_689_512 - 513_000),
        ("resnet34", "imagenet", 21_797_672 - 513_000),
        ("resnet50", "imagenet", 25_557_032 - 2_049_000),
        # a 3 x 3 stem in the place of the 7 x 7 one
        ("resnet18", "cifar", 11_176_512 - 64 * 3 * (49 - 9)),
        ("resnet50", "cifar", 23_508_032 - 64 * 3 * (49 - 9)),
        # ViT-Ti/16 and ViT-S/16 of Touvron et al. (2021), less the head
        ("vit_tiny", "imagenet", 5_717_416 - 193_000),
        ("vit_small", "imagenet", 22_050_664 - 385_000),
    ],
)
def test_encoders_have_the_known_number_of_parameters(name, stem, parameters):
    assert count(on_meta(build_encoder, name, stem, 224)[0]) == parameters


def test_resnet18_is_torchvisions():
    """The same weights give the same features as torchvision's network before its classifier."""
    ours, _ = build_encoder("resnet18")
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_the_cifar_stem_keeps_the_resolution():
    net, _ = on_meta(build_encoder, "resnet18", "cifar")
    seen = {}
    for name in ("layer1", "layer4"):
        net.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: tuple(out.shape[1:])})
        )
    net(torch.empty(1, 3, 32, 32, device="meta"))
    assert seen == {"layer1": (64, 32, 32), "layer4": (512, 4, 4)}
    assert (net.conv1.kernel_size, net.conv1.stride) == ((3, 3), (1, 1))
    assert not [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]


def test_the_imagenet_stem_is_seven_by_seven_with_max_pool():
    net, _ = on_meta(build_encoder, "resnet50", "imagenet")
    assert (net.conv1.kernel_size, net.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(net.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_the_narrow_net_has_the_stems_of_the_large_ones(stem):
    """Stem and first stage of torchvision's network with 12 channels, and the same resolutions."""
    narrow, large = (build_encoder(name, stem)[0] for name in ("narrow_resnet", "resnet18"))
    large = nn.Sequential(large.conv1, large.bn1, large.relu, large.maxpool)
    describe = [
        [(m.kernel_size, m.stride, m.padding) for m in net.modules() if hasattr(m, "padding")]
        for net in (narrow.stem, large)
    ]
    assert describe[0] == describe[1]
    x = torch.zeros(2, 3, 33, 33)
    assert narrow.stem(x).shape == (2, 12, *large(x).shape[2:])
    assert narrow.blocks(narrow.stem(x)).shape[1:] == (
        (96, 5, 5) if stem == "cifar" else (96, 2, 2)
    )


@pytest.mark.parametrize(("name", "start"), [("small_resnet", BRANCH_START), ("resnet18", 0)])
def test_residual_branches_start_small(name, start):
    net, _ = build_encoder(name, "cifar")
    blocks = [m for m in net.modules() if isinstance(m, torchvision.models.resnet.BasicBlock)]
    assert blocks and all((block.bn2.weight == start).all() for block in blocks)


@pytest.mark.parametrize(("stem", "patches"), [("cifar", 8 * 8), ("imagenet", 2 * 2)])
def test_vision_transformers_cut_patches_by_their_stem(stem, patches):
    net, _ = on_meta(build_encoder, "vit_tiny", stem, 32)
    assert net.encoder.pos_embedding.shape[1] == patches + 1  # and the class token


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("resnet51",),
            "No encoder 'resnet51'. Choose one of small_resnet, .*hf/NAME, or a module",
        ),
        ((["resnet18"],), r"No encoder \['resnet18'\]"),
        (("resnet18", "mnist"), "stem must be one of imagenet, cifar, got 'mnist'"),
        (("vit_tiny", "imagenet", 30), "image_size=30 is not a multiple of 16, .* Take 32"),
        (("vit_tiny", "cifar", 30), "image_size=30 is not a multiple of 4, .* Take 32"),
    ],
)
def test_unknown_encoders_and_stems_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_encoder(*arguments)


# the projector


def test_the_projector_is_the_papers():
    projector = on_meta(be.Projector, 2048, 8192)
    kinds = [type(m).__name__ for m in projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    linear = [m for m in projector if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (2048, 8192),
        (8192, 8192),
        (8192, 8192),
    ]
    assert all(m.bias is None for m in linear)
    assert [m.affine for m in projector if isinstance(m, nn.BatchNorm1d)] == [True, True, False]
    # three matrices, and a weight and a bias for each of the two inner batch norms
    assert count(projector) == 2048 * 8192 + 2 * 8192**2 + 2 * 2 * 8192 == 151_027_712


def test_the_projector_computes_what_its_formula_says():
    """Linear, standardise over the batch, ReLU, twice; linear, standardise: in numpy, float64."""
    projector = be.Projector(5, 4, hidden=6).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    h = x.numpy()
    weights = [m.weight.detach().numpy() for m in projector if isinstance(m, nn.Linear)]
    for i, weight in enumerate(weights):
        h = h @ weight.T
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
        h = np.maximum(h, 0) if i < 2 else h
    np.testing.assert_allclose(projector(x).detach().numpy(), h, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({"layers": 1}, [(5, 4)]),
        ({"layers": 2, "hidden": 9}, [(5, 9), (9, 4)]),
        ({"layers": 4}, [(5, 4), (4, 4), (4, 4), (4, 4)]),
    ],
)
def test_projectors_of_other_shapes(options, widths):
    projector = be.Projector(5, 4, **options)
    found = [(m.in_features, m.out_features) for m in projector if isinstance(m, nn.Linear)]
    assert found == widths
    last = projector[-1]
    assert isinstance(last, nn.BatchNorm1d) and not last.affine and last.num_features == 4


# the model


class Tiny(nn.Module):
    """A few parameters with all that matters: convolution, batch norm, pooling."""

    def __init__(self, dim=6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, dim, 3, stride=2, bias=False), nn.BatchNorm2d(dim), nn.ReLU()
        )

    def forward(self, x):
        return self.body(x).mean((2, 3))


def tiny_model(**options):
    torch.manual_seed(0)
    config = {"encoder": Tiny(), "encoder_dim": 6, "proj_dim": 5, "lambd": 0.1}
    return be.BarlowTwinsModel(config, **options)


def two_views(n=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 8, 8, generator=generator)
    return x, x + 0.5 * torch.randn(n, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("form", ["matrix", "gram", "auto"])
def test_the_model_equals_its_parts_put_together_by_hand(form):
    model, (x1, x2) = tiny_model(form=form), two_views()
    by_hand = copy.deepcopy(model)
    loss, metrics = model(x1, x2)
    z1, z2 = (by_hand.projector(by_hand.encoder(x)).double() for x in (x1, x2))
    z1, z2 = ((z - z.mean(0)) / z.std(0, correction=0) for z in (z1, z2))
    on, off = 0.0, 0.0
    for i in range(5):
        for j in range(5):
            c = (z1[:, i] * z2[:, j]).mean()
            on, off = (on + (1 - c) ** 2, off) if i == j else (on, off + c**2)
    torch.testing.assert_close(loss.double(), on + 0.1 * off, rtol=1e-5, atol=1e-6)
    (on + 0.1 * off).backward()
    loss.backward()
    for (name, p), q in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(metrics["on_diag_loss"].double(), on.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metrics["off_diag_loss"].double(), off.detach(), rtol=1e-4, atol=0)
    diagonal = (z1 * z2).mean().detach()
    torch.testing.assert_close(metrics["cross_corr_diag_mean"].double(), diagonal)
    # both went through batch norm one view after the other, so the running averages agree too
    for (name, a), b in zip(model.named_buffers(), by_hand.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_metrics_are_detached_scalars_and_agree_with_the_loss():
    loss, metrics = tiny_model()(*two_views())
    assert set(metrics) == {"loss", "on_diag_loss", "off_diag_loss", "cross_corr_diag_mean"}
    assert loss.requires_grad and loss.ndim == 0
    assert all(m.ndim == 0 and not m.requires_grad for m in metrics.values())
    assert metrics["loss"] == loss
    parts = metrics["on_diag_loss"] + 0.1 * metrics["off_diag_loss"]
    torch.testing.assert_close(metrics["loss"], parts)


class ReadNothing(TorchDispatchMode):
    """Refuses what has to wait for a GPU: to read a number, or to find out how many there are."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        aten = torch.ops.aten
        assert function not in (aten._local_scalar_dense.default, aten.nonzero.default), function
        return function(*args, **(kwargs or {}))


def test_a_step_reads_no_value_from_the_device():
    model, views = tiny_model(), two_views()
    with ReadNothing():
        loss, metrics = model(*views)
        loss.backward()
        with pytest.raises(AssertionError, match="local_scalar"):
            metrics["loss"].item()


def test_encode_and_embed_have_the_promised_shapes():
    model, (x, _) = tiny_model(), two_views()
    assert model.encode(x).shape == (16, 6)
    assert model.embed(x).shape == (16, 5)


def test_a_named_encoder_is_built():
    model = be.BarlowTwinsModel(encoder="small_resnet", proj_dim=8, proj_hidden=16)
    assert model.encoder_dim == 192
    assert model.embed(torch.randn(4, 3, 32, 32)).shape == (4, 8)
    assert model.projector[0].out_features == 16


def test_encoder_dim_2048_alone_is_a_resnet50():
    model = on_meta(be.BarlowTwinsModel, {"encoder_dim": 2048})
    assert count(model.encoder) == 23_508_032
    assert count(model.projector) == 151_027_712  # and the paper's projector
    assert model.encoder.conv1.kernel_size == (7, 7)
    assert model.config["lambd"] == 0.005


def test_nothing_given_is_the_papers_model():
    model = on_meta(be.BarlowTwinsModel)
    assert count(model) == 23_508_032 + 151_027_712


def test_any_module_on_vectors_is_an_encoder():
    torch.manual_seed(0)
    model = be.BarlowTwinsModel(encoder=nn.Linear(10, 7), encoder_dim=7, proj_dim=5)
    loss, _ = model(torch.randn(12, 10), torch.randn(12, 10))
    loss.backward()
    assert model.encoder.weight.grad.abs().sum() > 0


class Dictionary(nn.Module):
    def forward(self, x):
        return {"features": x}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Flatten(), r"shape \(16, 192\), but encoder_dim is 6.*Set encoder_dim"),
        (nn.Conv2d(3, 6, 3), r"shape \(16, 6, 6, 6\).*flattens or pools"),
        (Dictionary(), "returned a dict, but encoder_dim is 6: it must return a tensor"),
    ],
)
def test_an_encoder_of_another_width_is_told(encoder, message):
    model = be.BarlowTwinsModel(encoder=encoder, encoder_dim=6, proj_dim=5)
    with pytest.raises(ValueError, match=message):
        model(*two_views())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": nn.Identity()}, "With a module as encoder, give encoder_dim"),
        ({"encoder_dim": 512}, "encoder_dim=512 alone does not say which encoder"),
        ({"encoder": "small_resnet", "encoder_dim": 512}, "does not match small_resnet.*192"),
        ({"encoder": "resnet51"}, "No encoder 'resnet51'"),
        ({"encoder": "small_resnet", "stem": "big"}, "stem must be .* got 'big'"),
        ({"lambda": 1}, "lambda.*encoder, encoder_dim"),
        ({"lambd": -1}, "lambd must be a number of at least 0, got -1"),
        ({"proj_dim": 64.0}, "proj_dim must be a whole number of at least 1, got 64.0"),
        ({"joint_views": "yes"}, "joint_views must be one of True, False, got 'yes'"),
    ],
)
def test_impossible_models_are_told(config, message):
    with pytest.raises(ValueError, match=message):
        be.BarlowTwinsModel({"encoder": "small_resnet"} if "lambda" in config else {}, **config)


def test_views_of_different_length_are_told():
    x, y = two_views()
    with pytest.raises(ValueError, match="differ in batch size: 16 and 15"):
        tiny_model()(x, y[:15])


# model.cross_correlation


def everything(model):
    """All that a call could have changed."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(m.training, getattr(m, "momentum", None)) for m in model.modules()]
    return state, flags, [p.grad for p in model.parameters()]


def same(a, b):
    return a[1:] == b[1:] and all(torch.equal(a[0][k], b[0][k]) for k in a[0])


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@pytest.mark.parametrize("n", [2, 16])
def test_cross_correlation_leaves_the_model_as_it_was(mode, n):
    model = tiny_model()
    model.projector[1].momentum = None  # a cumulative average
    model(*two_views(seed=5))  # running averages of something
    model.train(mode != "eval")
    if mode == "mixed":
        model.encoder.body[1].eval()
    before = everything(model)
    c = model.cross_correlation(*two_views(n))
    assert same(before, everything(model))
    assert c.shape == (5, 5) and not c.requires_grad


def test_cross_correlation_is_that_of_training_mode_embeddings():
    model, (x1, x2) = tiny_model(), two_views()
    model(*two_views(seed=5))
    twin = copy.deepcopy(model).train()
    expected = be.cross_correlation(twin.embed(x1), twin.embed(x2))
    torch.testing.assert_close(model.eval().cross_correlation(x1, x2), expected)


def test_cross_correlation_leaves_dropout_out():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Dropout(0.5))
    model = be.BarlowTwinsModel(encoder=encoder, encoder_dim=6, proj_dim=5)
    views = two_views()
    assert torch.equal(model.cross_correlation(*views), model.cross_correlation(*views))
    assert model.encoder[2].training


def test_cross_correlation_survives_infinite_pixels():
    model, (x1, x2) = tiny_model(), two_views()
    before = everything(model)
    model.cross_correlation(x1, x2.index_fill(0, torch.tensor([3]), float("inf")))
    assert same(before, everything(model))


def test_the_model_is_put_back_when_something_fails():
    model = tiny_model()
    before = everything(model)
    with pytest.raises(ZeroDivisionError), batch_statistics(model):
        model.embed(two_views()[0])
        raise ZeroDivisionError
    assert same(before, everything(model))


# both views at once


def joint_pair():
    """Two models with the same weights, views one after the other and both at once; two views."""
    torch.manual_seed(0)
    options = {"encoder": "small_resnet", "stem": "cifar", "image_size": 16, "proj_dim": 8}
    apart = be.BarlowTwinsModel(options)
    joint = be.BarlowTwinsModel(options, joint_views=True)
    joint.load_state_dict(apart.state_dict())
    return apart, joint, *torch.randn(2, 12, 3, 16, 16)


def test_joint_views_see_the_statistics_of_both():
    apart, joint, a, b = joint_pair()
    b = b + 1  # another mean
    joint(a, b)
    norm = joint.encoder.stem[1]
    both = joint.encoder.stem[0](torch.cat((a, b)))
    torch.testing.assert_close(norm.running_mean, 0.1 * both.mean((0, 2, 3)))
    assert norm.num_batches_tracked == 1
    apart(a, b)
    assert apart.encoder.stem[1].num_batches_tracked == 2


def test_joint_views_differ_in_batch_norm_alone():
    apart, joint, a, b = joint_pair()
    assert abs(joint(a, b)[0] - apart(a, b)[0]) > 1e-3
    joint.load_state_dict(apart.state_dict())
    losses = [model.eval()(a, b)[0] for model in (apart, joint)]
    torch.testing.assert_close(*losses)


# step for step as published


def published_training(encoder, projector, twins, settings):
    """Weights after one step for each of ``twins``, by the formulas of the published code, in plain torch.

    C = BN(z_a)ᵀ BN(z_b) / N with torch's batch norm (eps 1e-5); the rate rises from 0; weights by LARS.
    """
    norm = nn.BatchNorm1d(settings["proj_dim"], affine=False).double()
    weights = [p for part in (encoder, projector) for p in part.parameters()]
    momentum = [torch.zeros_like(w) for w in weights]
    for step, views in enumerate(twins):
        z_a, z_b = (projector(encoder(view)) for view in views)
        c = norm(z_a).T @ norm(z_b) / len(z_a)
        off = c - c.diagonal().diag()
        loss = (c.diagonal() - 1).square().sum() + settings["lambd"] * off.square().sum()
        gradients = torch.autograd.grad(loss, weights)
        rising, rest = settings["warmup"], settings["total"] - settings["warmup"]
        if step < rising:
            factor = step / rising
        else:
            share = (1 + np.cos(np.pi * (step - rising) / rest)) / 2
            factor = share + 0.001 * (1 - share)
        with torch.no_grad():
            for w, g, v in zip(weights, gradients, momentum, strict=True):
                if w.ndim > 1:
                    g = g + settings["weight_decay"] * w
                    g = g * 0.001 * w.norm() / g.norm()
                v.mul_(0.9).add_(g)
                rate = settings["lr"] if w.ndim > 1 else settings["bias_lr"]
                w.sub_(factor * rate * v)
    return weights


@pytest.mark.parametrize("form", ["matrix", "gram"])
def test_twenty_steps_are_those_of_the_published_formulas(form):
    torch.manual_seed(0)
    settings = {"encoder": TinyEncoder(), "encoder_dim": 12, "proj_dim": 8, "lambd": 0.0051}
    model = be.BarlowTwinsModel(settings, eps=1e-5, form=form).double()
    assert not isinstance(model.projector[-1], nn.BatchNorm1d)
    twins = torch.randn(20, 2, 32, 3, 16, 16, dtype=torch.float64)
    twins[:, 1] += twins[:, 0]
    rates = {"lr": 1.6, "bias_lr": 0.0384, "weight_decay": 1e-6}
    plan = {**settings, **rates, "warmup": 5, "total": 20}
    parts = copy.deepcopy((model.encoder, model.projector))
    published = published_training(*parts, twins, plan)
    optimizer = optim.build_optimizer("lars", model, **rates)
    for step, views in enumerate(twins):
        optim.set_learning_rate(optimizer, optim.warmup_cosine(step, 20, 5, offset=0))
        optimizer.zero_grad()
        model(*views)[0].backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), published, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_an_eps_holds_the_push_on_a_dying_dimension():
    """The gradient of a dimension grows as 1 / σ, until eps is larger than its variance."""
    torch.manual_seed(0)
    z_a, noise = torch.randn(2, 64, 4, dtype=torch.float64)
    z_b = z_a + noise

    def push(scale, eps):
        z = (z_a * torch.tensor([scale, 1, 1, 1])).requires_grad_()
        be.barlow_twins_loss(z, z_b, eps=eps).loss.backward()
        return z.grad[:, 0].norm()

    assert push(1e-6, 0.0) / push(1e-3, 0.0) == pytest.approx(1e3, rel=1e-6)
    assert push(1e-6, 1e-5) / push(1e-3, 1e-5) < 2
