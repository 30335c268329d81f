"""Neighbours, probes and factors against scikit-learn."""

import inspect
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import PredefinedSplit, train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler

import barlow_edu as be
from barlow_edu.evaluation import probes
from barlow_edu.evaluation.probes import (
    REGULARIZATIONS,
    Score,
    choose_regularization,
    labelled_subset,
)


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


def test_every_vote_is_lightlys():
    knn = pytest.importorskip("lightly.utils.benchmarking.knn")
    (bank, labels), (queries, _) = clusters(), clusters(100, seed=1)
    unit = torch.nn.functional.normalize
    for k, temperature in ((1, 0.1), (20, 0.1), (200, 0.07)):
        ranks = knn.knn_predict(unit(queries), unit(bank).T, labels, 5, k, temperature)
        assert be.knn_accuracy(bank, labels, queries, ranks[:, 0], k, temperature) == 1


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


def test_knn_inside_autocast_is_knn_outside():
    train, test = clusters(), clusters(200, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside, neighbours = be.knn_accuracy(*train, *test, 20), be.nearest(train[0], test[0])
    assert inside == be.knn_accuracy(*train, *test, 20)
    assert all(map(torch.equal, neighbours, be.nearest(train[0], test[0])))


def test_knn_does_not_care_for_the_default_type():
    train, test = clusters(), clusters(200, seed=1)
    expected = be.knn_accuracy(*train, *test, 20)
    torch.set_default_dtype(torch.float64)
    try:
        assert be.knn_accuracy(*train, *test, 20) == expected
    finally:
        torch.set_default_dtype(torch.float32)


# the linear probe


@pytest.mark.parametrize("probe", ["linear", "few labels"])
def test_a_test_image_is_judged_alike_whoever_stands_beside_it(probe):
    """The features are standardised by the training images alone; half of these test images lie far out."""
    train, (x, y) = clusters(), clusters(60, seed=1)
    x[30:] *= 1000

    def hits(rows):
        if probe == "linear":
            return len(rows) * be.linear_probe(*train, x[rows], y[rows], regularization=1.0)
        return len(rows) * be.few_label_probe(*train, x[rows], y[rows], (3,), (0,))[3].mean

    near, far, together = (hits(torch.arange(*rows)) for rows in ((30,), (30, 60), (60,)))
    assert near + far == pytest.approx(together, abs=1e-6)
    assert 6 < near < 30


def test_the_linear_probe_is_scikit_learns():
    train, test = clusters(), clusters(200, seed=1)
    scaler = StandardScaler().fit(train[0].numpy())
    # loss summed over 300 images, beside the weight 1 / C of half the squared norm
    probe = LogisticRegression(C=1 / (300 * 1e-3), max_iter=200, tol=1e-3)
    probe.fit(scaler.transform(train[0].numpy()), train[1].numpy())
    expected = probe.score(scaler.transform(test[0].numpy()), test[1].numpy())
    assert 0.3 < expected < 0.95
    found = be.linear_probe(*train, *test, regularization=1e-3)
    assert found == pytest.approx(expected, abs=0.011)


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
        (lambda a, y, b, z: (a[0], y, b, z), r"must be \(N, dim\), tensors with the same dim"),
        (lambda a, y, b, z: (a, y, b[:, :5], z), r"got \(300, 12\) and \(100, 5\)"),
        (lambda a, y, b, z: (a, y[:9], b, z), "As many labels as features.*got 9 for 300"),
        (lambda a, y, b, z: (a, y, b, z[:9]), "got 300 for 300 and 9 for 100"),
        (lambda a, y, b, z: (a * math.nan, y, b, z), "hold NaN or infinity"),
        (lambda a, y, b, z: (a, y, b / 0, z), "hold NaN or infinity"),
        (lambda a, y, b, z: (a[:0], y[:0], b, z), r"must be \(N, dim\).*got \(0, 12\)"),
        (lambda a, y, b, z: (a, y, b[:0], z[:0]), r"got \(300, 12\) and \(0, 12\)"),
        (lambda a, y, b, z: (a.numpy(), y, b, z), r"must be \(N, dim\), tensors"),
        (lambda a, y, b, z: (a, y.float(), b, z), r"labels must be whole .* got torch.float32 of"),
        (lambda a, y, b, z: (a, y, b, z.int()), "labels must be whole .* got torch.int32 of shape"),
        (lambda a, y, b, z: (a, y > 1, b, z), "labels must be whole .* got torch.bool of"),
        (lambda a, y, b, z: (a, y.tolist(), b, z), "labels must be whole .* got list of"),
        (lambda a, y, b, z: (a, y.numpy(), b, z), "labels must be whole .* got int64 of shape"),
        (lambda a, y, b, z: (a, y[:, None], b, z), "labels must be whole .*flatten"),
        (lambda a, y, b, z: (a, y - 1, b, z), "at least 0.* Leave images without a label out"),
    ],
)
def test_features_that_do_not_fit_are_told(score, change, message):
    with pytest.raises(ValueError, match=message):
        score(*change(*clusters(), *clusters(100, seed=1)))


@pytest.mark.parametrize(
    ("k", "temperature"),
    [(0, 0.1), (-1, 0.1), (2.5, 0.1), (True, 0.1), (5, 0.0), (5, -1.0), (5, math.nan)],
)
def test_an_impossible_vote_is_told(k, temperature):
    with pytest.raises(ValueError, match=f"got {k} and {temperature}"):
        be.knn_accuracy(*clusters(), *clusters(), k, temperature)


def test_neighbours_are_scikit_learns():
    bank, queries = clusters()[0], clusters(2300, seed=1)[0]  # in parts of 1000
    reference = NearestNeighbors(n_neighbors=4, metric="cosine").fit(bank.numpy())
    distances, rows = reference.kneighbors(queries.numpy())
    similarity, found = be.nearest(bank, queries, k=4)
    assert (found.numpy() == rows).mean() > 0.999  # a tie may be broken either way
    np.testing.assert_allclose(similarity, 1 - distances, atol=1e-5)


@pytest.mark.parametrize("k", [0, 301])
def test_a_number_of_neighbours_that_cannot_be_is_told(k):
    with pytest.raises(ValueError, match=f"between 1 and the 300 features there are, got {k}"):
        be.nearest(clusters()[0], clusters()[0], k)


# the regularisation


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dim", [12, 200])
def test_the_regularisation_is_what_scikit_learns_search_finds(dim, seed):
    """LogisticRegressionCV on our split, over our grid."""
    x, y = clusters(400, dim, spread=2.5)
    fit, held = train_test_split(
        np.arange(400), test_size=40, random_state=seed, stratify=y.numpy()
    )
    scaled = StandardScaler().fit(x[fit].numpy()).transform(x.numpy())
    fold = np.full(400, -1)
    fold[held] = 0
    strengths = [1 / (len(fit) * r) for r in REGULARIZATIONS]
    settings = {"Cs": strengths, "cv": PredefinedSplit(fold), "max_iter": 500}
    newer = {"l1_ratios": [0.0], "use_legacy_attributes": False}  # asked for from some release on
    if set(newer) <= set(inspect.signature(LogisticRegressionCV).parameters):
        settings |= newer
    search = LogisticRegressionCV(scoring="accuracy", **settings).fit(scaled, y.numpy())
    scores = search.scores_  # before: one table for every class, all alike
    scores = next(iter(scores.values())) if isinstance(scores, dict) else scores
    accuracies = np.asarray(scores).reshape(-1)
    ours = REGULARIZATIONS.index(choose_regularization(x, y, seed))
    # within one image of the best: the solvers stop at different places
    assert accuracies[ours] >= accuracies.max() - 1 / 40 - 1e-9


def test_many_noisy_dimensions_want_more_regularisation_than_few():
    noisy = clusters(400, 300, spread=4.0)
    plain = clusters(4000, 5, spread=0.8)
    assert choose_regularization(*noisy) > choose_regularization(*plain)


def test_the_test_images_choose_nothing():
    """The default probe is the probe with what the training images alone chose."""
    train, test = clusters(400, 100, spread=3), clusters(200, 100, seed=1, spread=3)
    chosen = choose_regularization(*train, seed=3)
    assert be.linear_probe(*train, *test, seed=3) == be.linear_probe(*train, *test, chosen)


def test_held_out_images_only_judge(monkeypatch):
    """What is fitted, scaler and probes, sees one part of the images; what judges them sees the other."""
    x, y = clusters(200)
    seen = {"scaler": [], "fit": [], "score": []}

    def spy(cls, name, what):
        original = getattr(cls, name)

        def method(self, table, *rest):
            seen[what].append(np.asarray(table))
            return original(self, table, *rest)

        monkeypatch.setattr(cls, name, method)

    spy(StandardScaler, "fit", "scaler")
    spy(LogisticRegression, "fit", "fit")
    spy(LogisticRegression, "score", "score")
    choose_regularization(x, y, seed=2)
    (own,), rows = seen["scaler"], x.numpy()
    back = {what: tables[0] * own.std(0) + own.mean(0) for what, tables in seen.items()}
    numbers = {
        what: {int(np.abs(rows - row).sum(1).argmin()) for row in table}
        for what, table in (back | {"scaler": own}).items()
    }
    assert numbers["scaler"] == numbers["fit"] and len(numbers["fit"]) == 180
    assert not numbers["fit"] & numbers["score"] and len(numbers["score"]) == 20
    for what in ("fit", "score"):
        assert all(np.array_equal(table, seen[what][0]) for table in seen[what])


def test_too_few_images_choose_nothing():
    assert choose_regularization(*clusters(49)) == probes.FEW_REGULARIZATION


def test_a_class_with_one_image_does_not_stop_the_search():
    x, y = clusters(200)
    y[0] = 7
    assert choose_regularization(x, y) in REGULARIZATIONS


def test_more_classes_than_a_tenth_of_the_images_do_not_stop_the_search():
    x, _ = clusters(60)
    assert choose_regularization(x, torch.arange(60)) in REGULARIZATIONS


@pytest.mark.parametrize("labels", [torch.zeros(300, dtype=torch.long)])
def test_one_class_is_told(labels):
    with pytest.raises(ValueError, match="at least two classes"):
        be.linear_probe(clusters()[0], labels, *clusters())


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_an_impossible_regularisation_is_told(value):
    with pytest.raises(ValueError, match=f"must be above 0, got {value}"):
        be.linear_probe(*clusters(), *clusters(), regularization=value)


# few labels


def test_few_labels_are_scikit_learns_on_that_subset():
    train, test = clusters(), clusters(200, seed=1)
    found = be.few_label_probe(*train, *test, per_class=(3,), seeds=(0, 4), regularization=0.05)
    scaler = StandardScaler().fit(train[0].numpy())  # of all images: that takes no label
    expected = []
    for seed in (0, 4):
        rows = labelled_subset(train[1], 3, seed)
        probe = LogisticRegression(C=1 / (15 * 0.05), tol=1e-3, max_iter=200)
        probe.fit(scaler.transform(train[0][rows].numpy()), train[1][rows].numpy())
        expected.append(probe.score(scaler.transform(test[0].numpy()), test[1].numpy()))
    assert found[3].mean == pytest.approx(np.mean(expected), abs=0.006)
    assert found[3].sd == pytest.approx(np.std(expected, ddof=1), abs=0.006)
    assert found[3].seeds == 2


def test_more_labels_are_better():
    found = be.few_label_probe(*clusters(1000), *clusters(500, seed=1), (1, 10, 100))
    assert found[1].mean < found[10].mean < found[100].mean


def test_a_subset_has_so_many_of_every_class_and_grows():
    labels = clusters(300)[1]
    few, more = labelled_subset(labels, 2, seed=5), labelled_subset(labels, 9, seed=5)
    assert torch.bincount(labels[few]).tolist() == [2] * 5
    assert torch.bincount(labels[more]).tolist() == [9] * 5
    assert set(few.tolist()) < set(more.tolist())
    assert not torch.equal(few, labelled_subset(labels, 2, seed=6))


@pytest.mark.parametrize("n", [0, 299])
def test_more_labels_than_there_are_is_told(n):
    with pytest.raises(ValueError, match=f"between 1 and 50, .* smallest class, .* got {n}"):
        be.few_label_probe(*clusters(), *clusters(), (n,))


def test_a_score_is_mean_and_deviation():
    assert Score.of([0.5]) == (0.5, 0.0, 1)
    assert Score.of([0.2, 0.4, 0.9]) == pytest.approx((0.5, np.std([0.2, 0.4, 0.9], ddof=1), 3))


# factors


def factors(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "tint": torch.from_numpy(rng.normal(size=(n, 3))),
        "side": torch.from_numpy(rng.integers(5, 20, n)),
        "class": torch.from_numpy(rng.integers(0, 3, n)),
    }


def test_what_is_there_is_found_and_what_is_not_is_not():
    f = factors()
    noise = torch.randn(400, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = {
        "all": torch.cat([f["tint"], f["side"][:, None], torch.eye(3)[f["class"]]], 1) @ noise[:7],
        "tint": f["tint"] @ noise[:3],
        "nothing": noise,
    }
    table = be.factor_probe(layers, f)
    assert list(table) == list(layers) and list(table["all"]) == list(f)
    assert min(table["all"].values()) > 0.999
    assert table["tint"]["tint"] > 0.999 and abs(table["tint"]["side"]) < 0.1
    assert max(table["nothing"].values()) < 0.05


def test_the_factor_probe_is_scikit_learns_ridge_with_the_best_of_its_penalties():
    f = factors()
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)).double()
    x[:, 0] += f["side"]
    x[:, 1] *= f["side"]
    order = np.random.default_rng(2).permutation(400)
    fit, held = order[:200], order[200:]
    scaler = StandardScaler().fit(x[fit].numpy())
    side = f["side"].numpy().astype(float)
    scores = []
    for penalty in probes.RIDGE_PENALTIES:
        ridge = Ridge(penalty).fit(scaler.transform(x[fit].numpy()), side[fit])
        scores.append(r2_score(side[held], ridge.predict(scaler.transform(x[held].numpy()))))
    found = be.factor_probe({"x": x}, {"side": f["side"]}, seed=2)["x"]["side"]
    assert 0.5 < found <= max(scores) + 1e-9
    assert min(abs(found - s) for s in scores) < 1e-9 and found > max(scores) - 0.01


@pytest.mark.parametrize(
    ("layers", "told", "message"),
    [
        ({"h": torch.zeros(9, 2)}, factors(), "one row an image, got {'h': 9, 'tint': 400"),
        ({"h": torch.zeros(400, 2)}, {"one": torch.ones(400)}, "'one' is the same for all"),
    ],
)
def test_factors_that_do_not_fit_are_told(layers, told, message):
    with pytest.raises(ValueError, match=message):
        be.factor_probe(layers, told)
