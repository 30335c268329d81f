"""Encoders of other libraries and packages by name, and modules: built, trained and read again, with no download."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from tiny import CONFIG, TinyEncoder, tiny_images, write_tree
from torch import nn

import barlow_edu as be
from barlow_edu import cli
from barlow_edu.storage.libraries import features_dim

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose encoder was a module, and that module."""
    torch.manual_seed(0)
    encoder, out = TinyEncoder(), tmp_path_factory.mktemp("runs") / "a"
    config = {**CONFIG, "encoder": encoder}
    return be.pretrain(config, out, tiny_images(), progress=False, epochs=1), encoder


# names


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("torchvision/resnet18", 32, 512),
        ("torchvision/vit_b_16", 32, 768),
        ("torchvision/mobilenet_v3_small", 64, 1024),
        ("torchvision/densenet121", 64, 1024),
        ("timm/resnet18", 32, 512),
        ("timm/vit_tiny_patch16_224", 32, 192),
        ("timm/mobilenetv3_small_050", 32, 1024),
        ("hf/resnet", 32, 2048),
        ("hf/vit", 32, 768),
        ("hf/segformer", 32, 256),
    ],
)
def test_a_library_s_encoder_gives_features_without_a_classifier(name, size, dim, caplog):
    pytest.importorskip({"hf": "transformers"}.get(name.split("/")[0], name.split("/")[0]))
    with torch.device("meta"):
        encoder, width = be.build_encoder(name, image_size=size)
        assert encoder(torch.zeros(2, 3, size, size)).shape == (2, width) == (2, dim)
    assert "classifier" not in caplog.text


def test_timm_has_the_same_width_and_weights():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours, dim = be.build_encoder("timm/test_vit", image_size=32)
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", num_classes=0, img_size=32)
    assert dim == theirs.num_features
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class Backbone(nn.Module):
    """A vision model as transformers has them, with a token that only masked pictures use."""

    def __init__(self, config):
        super().__init__()
        self.size, self.pools = config.image_size, config.pools
        self.mask_token = nn.Parameter(torch.zeros(4))
        self.body = nn.Linear(3, 4)

    def forward(self, pixel_values):
        assert pixel_values.shape[2:] == (self.size, self.size)
        tokens = self.body(pixel_values.flatten(2).mT)  # (N, tokens, 4)
        pooled = tokens.amax(1)[..., None, None] if self.pools else None
        return SimpleNamespace(last_hidden_state=tokens, pooler_output=pooled)


@pytest.mark.parametrize("pools", [True, False])
def test_models_of_transformers_are_pooled_and_an_idle_token_is_named(pools, monkeypatch, caplog):
    config = SimpleNamespace(image_size=224, pools=pools)
    names = {"CONFIG_MAPPING": {"picture": lambda: config}, "AutoConfig": None}
    names |= {"AutoModel": SimpleNamespace(from_config=Backbone)}
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(**names))
    encoder, dim = be.build_encoder("hf/picture", image_size=8)
    x = torch.rand(2, 3, 8, 8)
    tokens = encoder.model.body(x.flatten(2).mT)
    torch.testing.assert_close(encoder(x), tokens.amax(1) if pools else tokens.mean(1))
    assert dim == 4 and not encoder.model.mask_token.requires_grad
    assert "no gradient reaches model.mask_token." in caplog.text


@pytest.fixture
def vit(tmp_path):
    """A folder that transformers wrote, of a ViT that was made for 16 x 16 pixels, and that ViT."""
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(**small, intermediate_size=16, image_size=16, patch_size=8)
    net = transformers.ViTModel(config)
    net.save_pretrained(tmp_path / "vit")
    return f"hf/{tmp_path / 'vit'}", net


TINY = dict(data="garments", limit=16, batch_size=8, image_size=32, proj_dim=4, proj_hidden=4)
TINY |= dict(epochs=1, snapshots=0, progress=False, lr=1e-9)


def test_a_run_begins_with_the_weights_of_a_folder_and_its_twin_without(vit, tmp_path):
    name, theirs = vit
    x = torch.rand(2, 3, 32, 32)
    expected = theirs.eval()(x, interpolate_pos_encoding=True).pooler_output
    run = be.pretrain("garments_quick", tmp_path / "run", encoder=name, **TINY)
    trained = be.load_run(run.path).load_model()  # with this rate it is as it began
    torch.testing.assert_close(trained.encoder(x), expected)
    for untrained in run.untrained(), run.load_model(weights=False):
        assert (untrained.eval().encoder(x) - expected).abs().max() > 0.01
    encoder, dim = be.build_encoder(name, image_size=32, weights=True)
    torch.testing.assert_close(encoder.eval()(x), expected)
    assert dim == 8 and encoder(x).dtype == torch.float32 and be.build_encoder(name)[0].training


def test_a_folder_with_a_configuration_alone_is_an_untrained_model(vit):
    name, theirs = vit
    (Path(name.removeprefix("hf/")) / "model.safetensors").unlink()
    encoder, dim = be.build_encoder(name, image_size=32, weights=True)
    token = encoder.model.embeddings.cls_token
    assert dim == 8 and encoder.training and not token.equal(theirs.embeddings.cls_token)


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
def test_a_model_of_transformers_is_an_encoder_as_it_is(kind, vit, tmp_path):
    transformers = pytest.importorskip("transformers")
    net = getattr(transformers, kind)(vit[1].config)
    run = be.pretrain("garments_quick", tmp_path / "run", encoder=net, **TINY)
    assert run.config["encoder"] == f"module/{kind}" and run.config["encoder_dim"] == 8
    again = be.load_run(run.path, encoder=getattr(transformers, kind)(vit[1].config))
    x = torch.rand(2, 3, 32, 32)
    out = net.base_model.eval()(x, interpolate_pos_encoding=True)
    pooled = out.pooler_output if kind == "ViTModel" else out.last_hidden_state.mean(1)
    torch.testing.assert_close(again.load_model().encoder(x), pooled)


def test_another_package_adds_an_encoder_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("def net(stem, size):\n    return stem, size\n", "utf-8")
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: theirs\nVersion: 1.0\n", "utf-8")
    entry = "[barlow_edu.encoders]\nof_theirs = theirs:net\n"
    (about / "entry_points.txt").write_text(entry, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert be.build_encoder("of_theirs", "cifar", 48) == ("cifar", 48)
    assert be.load_config(encoder="of_theirs")["encoder"] == "of_theirs"
    with pytest.raises(ValueError, match="tiny, of_theirs, timm/NAME"):
        be.load_config(encoder="of_their")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("torchvision/resnet81", 32, "torchvision has no 'resnet81'. Did you mean resnet18"),
        ("torchvision/maskrcnn_resnet50_fpn", 32, "torchvision has no 'maskrcnn"),
        ("torchvision/squeezenet1_0", 32, "no linear classifier"),
        ("torchvision/alexnet", 16, "torchvision/alexnet does not take images of 16 x 16 pixels: "),
        ("timm/resnet81", 32, "timm has no 'resnet81'. Did you mean resnet"),
        ("timm/hf-hub:someone/net", 32, "timm has no 'hf-hub:someone/net'"),
        ("hf/vitt", 32, "no folder, and no type of model in transformers. Did you mean vit"),
        ("hf/bert", 32, "hf/bert does not take images of 32 x 32 pixels: "),
        ("keras/resnet", 32, "No encoder 'keras/resnet'.*timm/NAME, torchvision/NAME, hf/NAME"),
    ],
)
def test_what_a_library_does_not_have_is_said(name, size, message):
    library = name.split("/")[0]
    if library in ("timm", "hf"):
        pytest.importorskip("timm" if library == "timm" else "transformers")
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        be.build_encoder(name, image_size=size)


def test_a_run_keeps_the_name_and_is_evaluated_by_it(tmp_path, capsys):
    root = write_tree(tmp_path / "images")
    library = "timm/test_resnet" if find_spec("timm") else "torchvision/mobilenet_v3_small"
    settings = f"encoder={library} data=folder root={root} batch_size=16 image_size=32 proj_dim=8"
    out = tmp_path / "run"
    arguments = ["pretrain", "garments_quick", "--out", str(out), "--set", *settings.split()]
    assert cli.main([*arguments, "epochs=1"]) == 0
    assert be.load_run(out).config["encoder"] == library
    assert cli.main(["evaluate", str(out), "--no-linear", "--k", "5"]) == 0
    assert "trained encoder" in capsys.readouterr().out


# modules


def test_a_module_is_trained_as_a_copy_and_read_again(run):
    run, encoder = run
    assert run.config["encoder"] == "module/TinyEncoder" and run.config["encoder_dim"] == 12
    again = be.load_run(run.path, encoder=TinyEncoder()).load_model().encoder.state_dict()
    before, after = encoder.state_dict(), run.load_model().encoder.state_dict()
    for name, value in run.load_model(weights=False).encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert torch.equal(after[name], again[name])
        assert not torch.equal(value, after[name]), name
    rows = be.evaluate(run, tiny_images(), tiny_images(seed=1), linear=False)["rows"]
    assert set(rows) == {"pixels", "random encoder", "trained encoder"}


def test_a_run_with_a_module_goes_on(run, tmp_path):
    _, encoder = run
    given = {"data": tiny_images(), "progress": False, "encoder": encoder}
    run = be.pretrain({**CONFIG, "epochs": 1}, tmp_path / "a", **given)
    assert (
        be.pretrain({**CONFIG, "epochs": 2}, run.path, resume=True, **given).metrics[-1]["step"]
        == 10
    )
    with pytest.raises(ValueError, match="started with encoder='module/TinyEncoder', not 'tiny'"):
        be.pretrain(CONFIG, run.path, tiny_images(), resume=True, progress=False)


def test_without_its_module_a_run_says_what_it_needs(run):
    path = run[0].path
    with pytest.raises(ValueError, match=r"a module of yours, TinyEncoder.*encoder=TinyEncoder\("):
        be.load_run(path).load_model()
    with pytest.raises(ValueError, match="is module/TinyEncoder, not module/Flatten"):
        be.load_run(path, encoder=nn.Flatten()).load_model()


@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        (nn.Conv2d(3, 6, 3), {}, r"module/Conv2d returned shape \(2, 6, 14, 14\): .*pools"),
        (nn.Linear(5, 6), {}, "module/Linear does not take images of 16 x 16 pixels: "),
        (
            TinyEncoder(),
            {"encoder_dim": 13},
            r"TinyEncoder returned shape \(2, 12\), but encoder_dim is 13",
        ),
    ],
)
def test_a_module_that_does_not_fit_is_told(encoder, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        be.pretrain(CONFIG, tmp_path / "a", tiny_images(), encoder=encoder, **settings)
    assert not (tmp_path / "a").exists()


def test_a_classifier_left_on_is_noticed(caplog):
    with torch.device("meta"):
        net = torchvision.models.resnet18()
        assert features_dim(net, 32, "mine") == 1000
        assert "mine ends with the linear layer fc. Put" in caplog.text
        caplog.clear()
        net.fc = nn.Identity()
        assert features_dim(net, 32, "mine") == 512 and not caplog.text


def test_measuring_features_changes_nothing():
    encoder, state = TinyEncoder(), torch.get_rng_state()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert features_dim(encoder, 16, "mine") == 12
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert features_dim(nn.Flatten(), 4, "mine") == 48  # nothing to be trained
