"""Linear evaluation on streamed folders, against a loop by hand and scikit-learn; the published weights' layout."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from tiny import CONFIG, TinyEncoder
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.transforms import v2

from barlow_edu.cli import main
from barlow_edu.config import load_config, open_stream
from barlow_edu.evaluation.features import extract_features
from barlow_edu.models import BarlowTwinsModel
from barlow_edu.scale.imagenet_linear import (
    PROTOCOLS,
    LinearEvaluation,
    LinearProtocol,
    labelled_rows,
)
from barlow_edu.scale.official import load_official
from barlow_edu.training import pretrain

CLASSES = ("blue", "green", "red")
SHORT = LinearProtocol(epochs=3, batch_size=8, lr=0.5, weight_decay=0.01)


pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three classes of 10 training and 4 test pictures, told apart by their colour; one test file is broken."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.RandomState(0)
    for split, count in (("train", 10), ("val", 4)):
        for k, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.randint(0, 120, (24 + 8 * (i % 2), 28, 3))
                pixels[..., 2 - k] += 80
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (root / "val" / "green" / "3.png").write_bytes(b"")
    return root


def streams(tree, **overrides):
    settings = CONFIG | {"data": "folder", "root": str(tree), "views": "imagenet", "workers": 0}
    config = load_config(settings | overrides)
    return open_stream(config, "train", "decode_once"), open_stream(config, "val", "centre")


def evaluation(tree, protocol=SHORT, out=None):
    torch.manual_seed(0)
    return LinearEvaluation(TinyEncoder(), *streams(tree), protocol, out)


# the test's side


def test_the_accuracy_counts_centre_crops_of_readable_images(tree):
    found = evaluation(tree)
    encoder = nn.Sequential(found.encoder, found.head).eval()
    prepare = v2.Compose([v2.Resize(18, antialias=True), v2.CenterCrop(16)])
    hits = []
    for k, name in enumerate(CLASSES):
        for path in sorted((tree / "val" / name).iterdir()):
            if path.stat().st_size:
                picture = prepare(Image.open(path).convert("RGB"))
                x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
                hits.append(int(encoder(found.views.normalize(x)).argmax()) == k)
    assert len(hits) == 11
    told = found.accuracy()
    assert told["top1"] == pytest.approx(np.mean(hits)) and told["top5"] == 1.0
    assert len(found.test.unreadable) == 1


# training


def test_training_is_that_of_a_loop_by_hand(tree):
    """torch's own scheduler and loss over the same crops; the encoder and its averages stay as they are."""
    one, two = evaluation(tree), evaluation(tree)
    before = {k: v.clone() for k, v in one.encoder.state_dict().items()}
    one.run()
    optimizer = torch.optim.SGD(two.head.parameters(), 0.5, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    for _ in range(3):
        batches = list(two._batches())
        assert [len(labels) for _, labels in batches] == [8, 8, 8, 6]
        for x, labels in batches:
            with two.computer.autocast():
                logits = two.head(two.encoder.eval()(x)).float()
            loss = nn.CrossEntropyLoss()(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    torch.testing.assert_close(one.head.weight, two.head.weight)
    assert all(torch.equal(v, before[k]) for k, v in one.encoder.state_dict().items())


def test_on_features_that_tell_the_classes_apart_it_does_as_logistic_regression(tree):
    protocol = LinearProtocol(epochs=60, batch_size=30, lr=1.0, crop=0.9)
    found = evaluation(tree, protocol)
    result = found.run()
    train = streams(tree)[0].load(torch.arange(30))
    features = extract_features(found.encoder, train.images[:, :, :24], found.views.normalize)
    reference = LogisticRegression(max_iter=2000, C=100).fit(features, found.train.labels)
    assert reference.score(features, found.train.labels) > 0.9
    assert result["top1"] > 0.9
    assert result["train_images"] == 30 and result["test_images"] == 12
    assert result["unreadable"] == 1


def test_fine_tuning_moves_the_encoder_by_its_own_rate(tree):
    tuned = evaluation(tree, LinearProtocol(50, 1, 8, lr=0.1, encoder_lr=0.01, weight_decay=0.0))
    before = [p.clone() for p in tuned.encoder.parameters()]
    tuned.run()
    assert len(tuned.rows) == 15 and tuned.train.labels[tuned.rows].bincount().tolist() == [5] * 3
    assert all(
        not torch.equal(a, b) for a, b in zip(before, tuned.encoder.parameters(), strict=True)
    )
    assert [g["base_lr"] for g in tuned.optimizer.param_groups] == [0.1, 0.01]
    assert int(tuned.encoder.body[1].num_batches_tracked) == 2


def test_the_handed_over_encoder_stays_as_it_is(tree):
    encoder = TinyEncoder()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    protocol = LinearProtocol(epochs=1, batch_size=8, encoder_lr=0.1)
    LinearEvaluation(encoder, *streams(tree), protocol).run()
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize("encoder_lr", [0.0, 0.01])
def test_it_goes_on_where_it_was_stopped(tree, tmp_path, encoder_lr, monkeypatch):
    protocol = LinearProtocol(epochs=3, batch_size=8, encoder_lr=encoder_lr)
    whole = evaluation(tree, protocol)
    expected = whole.run()
    cut = evaluation(tree, protocol, tmp_path)
    save = cut._save

    def stop_after_two():
        save()
        if cut.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cut, "_save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    going_on = evaluation(tree, protocol, tmp_path)
    found = going_on.run()
    assert found["history"] == expected["history"]
    assert torch.equal(going_on.head.weight, whole.head.weight)
    assert json.loads((tmp_path / "linear.json").read_text())["top1"] == found["top1"]
    with pytest.raises(ValueError, match="holds another evaluation: protocol is"):
        evaluation(tree, SHORT, tmp_path).run()


@pytest.mark.parametrize("encoder_lr", [0.0, 0.01])
def test_the_folder_of_another_encoder_is_refused(tree, tmp_path, encoder_lr):
    """It would go on with the other's classifier, or give back the other's result as its own."""
    protocol = LinearProtocol(epochs=1, batch_size=8, encoder_lr=encoder_lr)
    found = evaluation(tree, protocol, tmp_path).run()
    assert evaluation(tree, protocol, tmp_path).run() == found
    torch.manual_seed(1)
    other = LinearEvaluation(TinyEncoder(), *streams(tree), protocol, tmp_path)
    with pytest.raises(ValueError, match="holds another evaluation: weights is checksum"):
        other.run()


def test_a_damaged_checkpoint_is_passed_over_and_two_are_named(tree, tmp_path):
    expected = evaluation(tree, SHORT, tmp_path).run()
    for name in ("checkpoint.pt", "checkpoint_previous.pt"):
        path = tmp_path / "linear" / name
        path.write_bytes(path.read_bytes()[:-1000])
        if name == "checkpoint.pt":  # it goes on from the epoch before
            assert evaluation(tree, SHORT, tmp_path).run() == expected
            path.write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint.pt is damaged.*checkpoint_previous.pt is"):
        evaluation(tree, SHORT, tmp_path).run()


# the protocols


def test_shares_of_imagenets_labels_are_as_large_as_the_published_lists():
    labels = torch.arange(1_281_167) % 1000
    assert len(labelled_rows(labels, 1)) == 12_811
    assert len(labelled_rows(labels, 10)) == 128_116
    rows = labelled_rows(labels[:5000], 10, seed=3)
    assert torch.equal(rows, labelled_rows(labels[:5000], 10, seed=3))
    assert labels[rows].bincount().float().std() < 0.6  # half of the classes of 5 have one
    assert not torch.equal(rows, labelled_rows(labels[:5000], 10, seed=4))


def test_the_protocols_are_the_published_ones():
    p = PROTOCOLS["linear"]
    assert (p.epochs, p.batch_size, p.lr, p.weight_decay, p.encoder_lr) == (100, 256, 0.3, 1e-6, 0)
    p = PROTOCOLS["1 %"]
    assert (p.percent, p.epochs, p.lr, p.encoder_lr, p.weight_decay) == (1, 20, 0.5, 0.002, 0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"percent": 0}, "percent must be above 0 and at most 100, got 0"),
        ({"epochs": 0}, "got epochs=0, batch_size=256"),
        ({"lr": 0}, "got lr=0, encoder_lr=0.0"),
    ],
)
def test_impossible_protocols_are_named(settings, told):
    with pytest.raises(ValueError, match=told):
        LinearProtocol(**settings)


@pytest.mark.parametrize("crop", [0.08, 0.9])
def test_a_crop_has_at_least_the_area_of_the_protocol(tree, crop):
    found = evaluation(tree, LinearProtocol(epochs=1, batch_size=30, crop=crop))
    box = found.views.draw(2000, 500, 500, 0, torch.Generator().manual_seed(0)).box
    assert (box[:, 2] * box[:, 3]).min() / 500**2 == pytest.approx(crop, rel=0.03)


def test_streams_of_the_wrong_kind_are_named(tree):
    train, test = streams(tree)
    with pytest.raises(
        ValueError, match="train must be a stream of mode 'decode_once', got 'centre'"
    ):
        LinearEvaluation(TinyEncoder(), test, test)
    train.classes = ["a", "b"]
    with pytest.raises(ValueError, match="The classes differ: 2 for training, 3 for the test"):
        LinearEvaluation(TinyEncoder(), train, test)
    train.classes = test.classes = ["a"]
    with pytest.raises(ValueError, match="An evaluation needs classes: folders train/CLASS"):
        LinearEvaluation(TinyEncoder(), train, test)


def test_a_run_on_other_images_asks_for_a_folder(tmp_path, capsys):
    config = CONFIG | {"data": "garments", "limit": 16, "epochs": 1}
    run = pretrain(config, tmp_path / "run", progress=False)
    assert main(["linear", str(run.path)]) == 2
    assert "Give --root PATH, a folder with train/CLASS/image" in capsys.readouterr().err


def test_the_command_computes_where_the_run_says(tree, tmp_path, capsys):
    run = pretrain(CONFIG | {"limit": 16, "epochs": 1}, tmp_path / "run", progress=False)
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("device: auto", "device: cuda:77"))
    assert main(["linear", str(run.path), "--root", str(tree), "--workers", "0"]) == 2
    assert "device='cuda:77', but torch finds" in capsys.readouterr().err


def test_the_command_line(tree, tmp_path, capsys):
    settings = {"data": "folder", "root": str(tree), "batch_size": 8, "epochs": 1}
    run = pretrain(CONFIG | settings, tmp_path / "run", progress=False, stream=True, workers=0)
    command = ["linear", str(run.path), "--epochs", "2", "--batch-size", "8", "--workers", "0"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["history"]) == 2 and found["protocol"]["lr"] == 0.3
    assert main([*command, "--percent", "50", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "the encoder trained on: 50 % of the labels (15 images)" in told and "top-1" in told
    assert "1 unreadable" in told and (tmp_path / "out" / "linear.json").exists()
    assert main([*command, "--encoder-lr", "0.1"]) == 2
    assert "give --fine-tune" in capsys.readouterr().err


# the published weights


def exclude_bias_and_norm(p):
    """What a published checkpoint's optimizer state refers to."""
    return p.ndim == 1


exclude_bias_and_norm.__module__ = "__main__"


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return {k: v for k, v in resnet50().state_dict().items() if not k.startswith("fc.")}


def checkpoint(backbone, widths=(16, 16, 24)):
    """The layout of the full checkpoint, with a narrow projector."""
    layers, inputs = [], 2048
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    head = nn.Sequential(*layers, nn.Linear(inputs, widths[-1], bias=False))
    bn = nn.BatchNorm1d(widths[-1], affine=False)
    bn.running_mean.normal_()
    parts = {"backbone": backbone, "projector": head.state_dict(), "bn": bn.state_dict()}
    model = {f"module.{p}.{k}": v for p, state in parts.items() for k, v in state.items()}
    group = {"lr": 0.1, "lars_adaptation_filter": exclude_bias_and_norm, "params": [0]}
    optimizer = {"state": {0: {"mu": torch.zeros(3)}}, "param_groups": [group]}
    return {"epoch": 1000, "model": model, "optimizer": optimizer}, head, bn


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_encoder_file_gives_its_features(backbone, tmp_path, prefix):
    torch.save({prefix + k: v for k, v in backbone.items()}, tmp_path / "resnet50.pth")
    encoder = load_official(tmp_path / "resnet50.pth")
    reference = resnet50()
    reference.fc = nn.Identity()
    reference.load_state_dict(backbone)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(encoder(x), reference.eval()(x)) and not encoder.training


def test_the_full_checkpoint_gives_encoder_and_projector(backbone, tmp_path, monkeypatch):
    import __main__

    monkeypatch.setattr(__main__, "exclude_bias_and_norm", exclude_bias_and_norm, raising=False)
    content, head, bn = checkpoint(backbone)
    torch.save(content, tmp_path / "checkpoint.pth")
    monkeypatch.delattr(__main__, "exclude_bias_and_norm")
    model = load_official(tmp_path / "checkpoint.pth")
    assert isinstance(model, BarlowTwinsModel) and model.config["proj_dim"] == 24
    x = torch.randn(3, 3, 64, 64)
    assert torch.equal(model.embed(x), bn.eval()(head.eval()(model.encode(x))))
    assert torch.equal(model.encoder.state_dict()["conv1.weight"], backbone["conv1.weight"])


def lightning(layout, **parts):
    """A checkpoint of a peer that trains with Lightning: its parts below their names, and what else is there."""
    state = {f"{part}.{k}": v for part, own in parts.items() for k, v in own.items()}
    return {"epoch": 3, "state_dict": state, "optimizer_states": [], "layout": layout}


@pytest.mark.parametrize("layout", ["timm", "timm, wrapped", "solo", "lightly", "VICReg", "moco"])
@pytest.mark.parametrize(("build", "stem"), [(resnet18, 3), (resnet50, 7)])
def test_the_layouts_of_other_libraries_are_recognised(layout, build, stem, tmp_path):
    """Each as its library writes it, from a network of torchvision's, whose features are then ours."""
    torch.manual_seed(0)
    net = build()
    if stem == 3:  # their stem for CIFAR; solo-learn's has a wider border
        net.conv1 = nn.Conv2d(3, 64, 3, padding=2 if layout == "solo" else 1, bias=False)
        net.maxpool = nn.Identity()
    named = net.state_dict()
    head = nn.Sequential(nn.Linear(net.fc.in_features, 8), nn.BatchNorm1d(8)).state_dict()
    classifier, net.fc = net.fc.state_dict(), nn.Identity()
    own = net.state_dict()
    module = {f"module.backbone.{k}": v for k, v in own.items()}
    children = nn.Sequential(*list(net.children())[:-1]).state_dict()
    content = {
        "timm": named,
        "timm, wrapped": {"state_dict": named},
        "solo": lightning(layout, backbone=own, projector=head, classifier=classifier),
        "lightly": lightning(layout, backbone=children, projection_head=head),
        "VICReg": {"model": module | {f"module.projector.{k}": v for k, v in head.items()}},
        "moco": lightning(layout, encoder=own, momentum_encoder=own, projector=head),
    }
    torch.save(content[layout], tmp_path / "weights.ckpt")
    encoder = load_official(tmp_path / "weights.ckpt")
    x = torch.randn(2, 3, 32, 32)
    features = net.eval()(x)
    torch.testing.assert_close(encoder(x), features, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda s: s.pop("conv1.weight"), r"a ResNet-50: 1 missing \(conv1.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unknown \(extra\)"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), r"1 of another shape \(bn1.bias\)"),
        (
            lambda s: [s.pop(k) for k in list(s)[:9]],
            r"9 missing \(conv1.weight, bn1.weight, .*\.\.\.",
        ),
    ],
)
def test_other_weights_are_told_apart(backbone, tmp_path, spoil, told):
    state = dict(backbone)
    spoil(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=told):
        load_official(tmp_path / "w.pth")


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth.*resnet50.pth"):
        load_official(tmp_path / "nowhere.pth")
    for text in ("no weights", "hello", ""):
        (tmp_path / "text.pth").write_text(text)
        with pytest.raises(ValueError, match="text.pth is not a file of weights .*: ."):
            load_official(tmp_path / "text.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not a mapping"):
        load_official(tmp_path / "list.pth")
    torch.save(
        {"epoch": 1, "model": {"module.backbone.conv1.weight": torch.ones(1)}}, tmp_path / "c.pth"
    )
    with pytest.raises(ValueError, match="holds no projector.*backbone.conv1.weight"):
        load_official(tmp_path / "c.pth")


class Evil:
    """Runs a command when it is unpickled by plain pickle."""

    def __reduce__(self):
        return print, ("run",)


def test_a_file_that_would_run_something_is_refused(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth is not a file of weights"):
        load_official(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""
