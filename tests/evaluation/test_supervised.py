"""Training with labels: against a loop of a few lines, and what it leaves alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import CONFIG, TinyEncoder, tiny_images
from torch import nn

import barlow_edu as be
from barlow_edu.evaluation.supervised import Budget, classifier_accuracy, supervised_encoder
from barlow_edu.numerics import devices
from barlow_edu.numerics.optim import warmup_cosine
from barlow_edu.training import pretrain

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(devices, "_fast_bfloat16", lambda device: False)


VIEWS = be.TwinViews("garments", 16)
SHORT = Budget(steps=40, epochs=1, batch_size=16, lr=0.01)


def test_it_is_the_plain_loop(in_float32):
    train, budget = tiny_images(48), Budget(steps=8, epochs=1, batch_size=16, lr=0.01)
    torch.manual_seed(0)
    encoder = TinyEncoder()
    found = be.train_classifier(encoder, train, VIEWS, budget, seed=3)

    net = nn.Sequential(copy.deepcopy(encoder), nn.Linear(12, 4)).train()
    for p in net[1].parameters():
        nn.init.zeros_(p)
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 1e-4}, {"params": vectors, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    generator, step = torch.Generator().manual_seed(3), 0
    while step < 8:
        for rows in torch.randperm(48, generator=generator).split(16):
            if step == 8:
                break
            drawn = VIEWS.draw(16, 16, 16, 0, generator)
            logits = net(VIEWS.apply(train.images[rows], drawn))
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * warmup_cosine(step, 8, 0)
            optimizer.zero_grad()
            F.cross_entropy(logits, train.labels[rows]).backward()
            optimizer.step()
            step += 1
    for ours, theirs in zip(found.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_it_learns_and_the_encoder_handed_over_stays():
    encoder = TinyEncoder()
    before = copy.deepcopy(encoder.state_dict())
    classifier = be.train_classifier(encoder, tiny_images(80), VIEWS, SHORT)
    assert classifier_accuracy(classifier, tiny_images(60, seed=1), VIEWS.normalize) > 0.6
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert encoder.training and not classifier.training


def test_frozen_weights_are_trained_too():
    encoder = TinyEncoder().requires_grad_(False)
    classifier = be.train_classifier(encoder, tiny_images(40), VIEWS, SHORT)
    assert not torch.equal(classifier[0].body[0].weight, encoder.body[0].weight)


def test_a_seed_repeats_it_and_another_does_not():
    encoder, images = TinyEncoder(), tiny_images(40)
    one, same, other = (be.train_classifier(encoder, images, VIEWS, SHORT, s) for s in (1, 1, 2))
    assert torch.equal(one[1].weight, same[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)


def test_the_budget_counts_steps_and_epochs():
    assert Budget(steps=300, epochs=3, batch_size=64).length(20_000) == 3 * 312
    assert Budget(steps=300, epochs=3, batch_size=64).length(100) == 300
    assert Budget(steps=0, epochs=2, batch_size=64).length(10) == 2


def test_accuracy_counts_the_largest_logit():
    images = tiny_images(8)
    answers = F.one_hot((images.labels + (torch.arange(8) >= 6)) % 4, 4).float()
    assert classifier_accuracy(lambda x: answers, images, lambda x: x.float()) == 6 / 8


def test_fine_tuning_is_that_with_few_labels_over_seeds():
    encoder, train, test = TinyEncoder(), tiny_images(80), tiny_images(60, seed=1)
    found = be.fine_tune(encoder, train, test, VIEWS, 2, (0, 5), SHORT)
    accuracies = []
    for seed in (0, 5):
        part = train.subset(be.probes.labelled_subset(train.labels, 2, seed))
        classifier = be.train_classifier(encoder, part, VIEWS, SHORT, seed)
        accuracies.append(classifier_accuracy(classifier, test, VIEWS.normalize))
    assert found == be.probes.Score.of(accuracies)
    assert be.fine_tune(encoder, train, test, VIEWS, None, (0,), SHORT).seeds == 1


def test_the_supervised_encoder_starts_where_the_run_did(tmp_path, in_float32):
    run = pretrain(CONFIG, tmp_path / "run", tiny_images(), progress=False)
    test = tiny_images(40, seed=1)
    trained, record = supervised_encoder(run, tiny_images(), test, epochs=3)
    start = run.load_model(weights=False).encoder
    budget = Budget(0, 3, CONFIG["batch_size"], CONFIG["lr"])
    expected = be.train_classifier(start, tiny_images(), run.views(), budget)
    another = be.config.build_model(run.config | {"seed": run.config["seed"] + 1}).encoder
    another = be.train_classifier(another, tiny_images(), run.views(), budget, seed=1)
    second, _ = supervised_encoder(run, tiny_images(), test, epochs=3, seed=1)
    assert all(map(torch.equal, second.parameters(), another[0].parameters()))
    assert all(map(torch.equal, trained.parameters(), expected[0].parameters()))
    accuracy = classifier_accuracy(expected, test, run.views().normalize)
    assert record["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert (record["epochs"], record["steps"], record["images"]) == (3, 15, 85)
    assert supervised_encoder(run, tiny_images(), test)[1]["epochs"] == CONFIG["epochs"]


@pytest.mark.parametrize("rows", [[0], [0, 4, 8]])
def test_one_image_or_one_class_is_told(rows):
    images = tiny_images(40).subset(rows)
    with pytest.raises(ValueError, match="at least two classes.*Take more labels"):
        be.train_classifier(TinyEncoder(), images, VIEWS, SHORT)
