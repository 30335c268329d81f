"""kNN and linear probe against scikit-learn, effective rank against cases worked out by hand."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from tiny import CONFIG, TinyEncoder, tiny_encoder, tiny_images
from torch import nn

import barlow_edu as be
from barlow_edu.data import ImageSet
from barlow_edu.training import pretrain


@pytest.fixture(autouse=True, scope="module")
def registered():
    with tiny_encoder():
        yield


def clusters(n=300, dim=12, classes=5, seed=0, spread=1.2):
    """Features and labels of overlapping classes: an accuracy strictly between chance and 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    features = centres[labels] + spread * rng.normal(size=(n, dim))
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


# kNN


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20, 200, 300])
def test_knn_is_scikit_learns_with_exponential_weights(k, temperature):
    train, test = clusters(), clusters(170, seed=1)
    # a larger common factor leaves the vote as it is and keeps small weights from vanishing
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda d: np.exp((1 - d.astype(np.float64)) / temperature)
    )
    reference.fit(train[0].numpy(), train[1].numpy())
    expected = reference.score(test[0].numpy(), test[1].numpy())
    assert 0.3 < expected < 0.95
    found = be.knn_accuracy(*train, *test, k, temperature)
    assert found == pytest.approx(expected, abs=1e-12)


def test_knn_in_parts_is_knn_at_once():
    train, test = clusters(), clusters(2300, seed=1)  # in parts of 1000
    parts = [be.knn_accuracy(*train, f[None], y[None], 20) for f, y in zip(*test, strict=True)]
    assert be.knn_accuracy(*train, *test, 20) == pytest.approx(np.mean(parts))


def test_knn_takes_all_there_are_when_k_is_more():
    train, test = clusters(50), clusters(40, seed=1)
    assert be.knn_accuracy(*train, *test, 200) == be.knn_accuracy(*train, *test, 50)


def test_knn_sees_direction_only():
    train, test = clusters(), clusters(100, seed=1)
    scale = torch.rand(300, 1) * 100 + 0.01
    assert be.knn_accuracy(train[0] * scale, train[1], *test, 20) == be.knn_accuracy(
        *train, *test, 20
    )


def test_knn_knows_the_training_images_themselves():
    train = clusters()
    assert be.knn_accuracy(*train, *train, k=1) == 1
    assert be.knn_accuracy(*train, *train, k=200, temperature=1e-3) == 1  # nothing overflows


def test_knn_in_half_precision_is_close():
    train, test = clusters(), clusters(200, seed=1)
    half = be.knn_accuracy(train[0].bfloat16(), train[1], test[0].bfloat16(), test[1], 20)
    assert half == pytest.approx(be.knn_accuracy(*train, *test, 20), abs=0.03)


# the linear probe


def test_the_linear_probe_is_scikit_learns():
    train, test = clusters(), clusters(200, seed=1)
    scaler = StandardScaler().fit(train[0].numpy())
    # loss summed over 300 images, beside the weight 1 / C of half the squared norm
    probe = LogisticRegression(C=1 / (300 * 1e-3), max_iter=200, tol=1e-3)
    probe.fit(scaler.transform(train[0].numpy()), train[1].numpy())
    expected = probe.score(scaler.transform(test[0].numpy()), test[1].numpy())
    assert 0.3 < expected < 0.95
    assert be.linear_probe(*train, *test) == pytest.approx(expected, abs=0.011)


def test_the_linear_probe_does_not_care_for_shift_and_scale():
    train, test = clusters(), clusters(200, seed=1)
    scale, shift = torch.logspace(-2, 2, 12), torch.linspace(-5, 5, 12)
    moved = [(f * scale + shift, y) for f, y in (train, test)]
    expected = be.linear_probe(*train, *test)
    assert be.linear_probe(*moved[0], *moved[1]) == pytest.approx(expected, abs=0.011)


def test_more_regularization_makes_a_weaker_probe():
    train, _ = clusters(40, dim=30), None
    strong, weak = (be.linear_probe(*train, *train, regularization=r) for r in (1e-4, 100.0))
    assert strong == 1 and weak < 1


def test_the_linear_probe_takes_what_features_come_as():
    train, test = clusters(), clusters(200, seed=1)
    expected = be.linear_probe(*train, *test)
    graded = train[0].clone().requires_grad_()
    assert be.linear_probe(graded, train[1], *test) == expected
    half = be.linear_probe(train[0].bfloat16(), train[1], test[0].bfloat16(), test[1])
    assert half == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("score", [be.knn_accuracy, be.linear_probe])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, y, b, z: (a[0], y, b, z), r"must be \(N, dim\) with the same dim"),
        (lambda a, y, b, z: (a, y, b[:, :5], z), r"got \(300, 12\) and \(100, 5\)"),
        (lambda a, y, b, z: (a, y[:9], b, z), "As many labels as features.*got 9 for 300"),
        (lambda a, y, b, z: (a, y, b, z[:9]), "got 300 for 300 and 9 for 100"),
        (lambda a, y, b, z: (a * math.nan, y, b, z), "hold NaN or infinity"),
        (lambda a, y, b, z: (a, y, b / 0, z), "hold NaN or infinity"),
    ],
)
def test_features_that_do_not_fit_are_told(score, change, message):
    with pytest.raises(ValueError, match=message):
        score(*change(*clusters(), *clusters(100, seed=1)))


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (-1, 0.1), (5, 0.0), (5, -1.0)])
def test_an_impossible_vote_is_told(k, temperature):
    with pytest.raises(ValueError, match=f"got {k} and {temperature}"):
        be.knn_accuracy(*clusters(), *clusters(), k, temperature)


# effective rank


def orthonormal(n, dim, seed=0):
    """Columns of unit length, orthogonal to each other and to the mean."""
    x = np.random.default_rng(seed).normal(size=(n, dim))
    return torch.from_numpy(np.linalg.qr(x - x.mean(0))[0])


def test_equal_directions_have_full_effective_rank():
    assert be.effective_rank(orthonormal(50, 7)) == pytest.approx(7)


def test_one_direction_has_effective_rank_one():
    x = torch.arange(20.0).outer(torch.tensor([1.0, -2.0, 3.0]))
    assert be.effective_rank(x) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7e4, 1e-30])
def test_a_constant_has_effective_rank_one(value):
    assert be.effective_rank(torch.full((10, 4), value)) == 1


def test_known_singular_values_give_the_entropy_by_hand():
    x = orthonormal(40, 3) * torch.tensor([2.0, 1.0, 1.0])  # shares 1/2, 1/4, 1/4: 1.5 bits
    assert be.effective_rank(x) == pytest.approx(2**1.5)


def test_few_samples_bound_the_effective_rank():
    assert be.effective_rank(torch.randn(5, 100)) <= 4 + 1e-9  # centring takes one


@given(
    st.integers(2, 12),
    st.integers(1, 12),
    st.integers(0, 2**31),
    st.floats(1e-6, 1e6),
    st.floats(-1e3, 1e3),
)
@settings(deadline=None)
def test_effective_rank_is_bounded_and_blind_to_scale_and_shift(n, dim, seed, scale, shift):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim)))
    rank = be.effective_rank(x)
    assert 1 - 1e-9 <= rank <= max(1, min(n - 1, dim)) + 1e-9
    assert be.effective_rank(x * scale) == pytest.approx(rank, rel=1e-6)
    assert be.effective_rank(x + shift) == pytest.approx(rank, rel=1e-6)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(dim, dim)))[0]
    assert be.effective_rank(x.numpy() @ rotation) == pytest.approx(rank, rel=1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(5), r"must be \(N, dim\).*got \(5,\)"),
        (torch.zeros(1, 5), r"N of 2 or more, got \(1, 5\)"),
        (torch.full((3, 2), math.nan), "hold NaN or infinity"),
        (torch.full((3, 2), math.inf), "hold NaN or infinity"),
    ],
)
def test_effective_rank_needs_a_table_of_numbers(features, message):
    with pytest.raises(ValueError, match=message):
        be.effective_rank(features)


# features


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


# a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return pretrain(CONFIG, out, tiny_images(), progress=False)


@pytest.fixture(scope="module")
def sets():
    return tiny_images(120), tiny_images(60, seed=1)


def test_an_evaluation_stands_beside_pixels_and_a_random_encoder(run, sets):
    train, test = sets
    found = be.evaluate(run, train, test, k=5)
    assert list(found["rows"]) == ["pixels", "random encoder", "trained encoder"]
    assert (found["train_images"], found["test_images"], found["k"]) == (120, 60, 5)
    assert (found["data"], found["temperature"]) == ("tiny", 0.1)
    pixels = [be.pixel_features(s.images) for s in sets]
    for name, model in [("random", run.load_model(weights=False)), ("trained", run.load_model())]:
        row, normalized = found["rows"][f"{name} encoder"], run.views().normalize
        a, b = (model.encode(normalized(s.images)).detach() for s in sets)
        assert row["knn"] == pytest.approx(
            be.knn_accuracy(a, train.labels, b, test.labels, 5), 1e-3
        )
        assert row["linear"] == pytest.approx(
            be.linear_probe(a, train.labels, b, test.labels), 1e-3
        )
        assert row["effective_rank"] == pytest.approx(be.effective_rank(b), 1e-3)
    row = found["rows"]["pixels"]
    knn = be.knn_accuracy(pixels[0], train.labels, pixels[1], test.labels, 5)
    assert row["knn"] == pytest.approx(knn, abs=1e-4)
    assert not (run.path / "evaluation.json").exists()


def test_an_evaluation_is_kept_where_that_is_wanted(run, sets):
    found = be.evaluate(run, *sets, linear=False, save=True)
    assert json.loads((run.path / "evaluation.json").read_text()) == found
    assert be.Run(run.path).evaluation == found
    assert all(set(row) == {"knn", "effective_rank"} for row in found["rows"].values())


def test_a_run_can_be_named_by_its_folder(run, sets):
    by_path = be.evaluate(str(run.path), *sets, linear=False)
    assert by_path == be.evaluate(run, *sets, linear=False)


def test_a_run_is_not_tried_on_other_images_unasked(run):
    """It was trained on images that were handed over, which its configuration cannot load."""
    with pytest.raises(ValueError, match="trained on 'tiny', but .* loads 'garments'. Give train="):
        be.evaluate(run)


def test_a_run_is_tried_on_its_own_images_by_default(tmp_path):
    settings = {"image_size": 32, "limit": 40, "epochs": 1}
    run = pretrain(CONFIG, tmp_path / "run", "garments", progress=False, **settings)
    found = be.evaluate(run, linear=False, test=be.load_images(split="test", limit=100))
    assert (found["train_images"], found["test_images"]) == (40, 100)


def test_splits_with_other_classes_are_refused(run, sets):
    train, test = sets
    other = ImageSet(test.images, test.labels, ["0", "1", "3", "4"], "tiny")
    with pytest.raises(
        ValueError, match=r"The classes differ: \['0', '1', '2', '3'\] for training"
    ):
        be.evaluate(run, train, other)
