"""Effective rank, RankMe and the decay exponent against spectra that are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import svdvals
from scipy.stats import linregress

import barlow_edu as be
from barlow_edu.evaluation import spectra


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


# RankMe


def test_rankme_is_the_papers_formula():
    x = np.random.default_rng(0).normal(size=(60, 9)) @ np.diag(np.arange(1.0, 10)) + 0.3
    p = svdvals(x) / svdvals(x).sum() + 1e-7  # Garrido et al., eq. 1 and 2
    assert be.rankme(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_rankme_of_known_singular_values():
    x = orthonormal(40, 3) * torch.tensor([2.0, 1.0, 1.0])  # shares 1/2, 1/4, 1/4: 1.5 bits
    assert be.rankme(x) == pytest.approx(2**1.5, rel=1e-4)


def test_rankme_counts_a_common_mean_and_the_effective_rank_does_not():
    x = orthonormal(50, 7)
    assert be.rankme(x + 100) < 1.2  # the mean drowns all else
    assert be.effective_rank(x + 100) == pytest.approx(7)


def test_rankme_of_nothing_is_one():
    assert be.rankme(torch.zeros(5, 3)) == 1


# the spectrum and its decay


def test_the_spectrum_is_that_of_numpys_covariance():
    x = np.random.default_rng(1).normal(size=(80, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0.1]) + 7
    expected = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    np.testing.assert_allclose(be.covariance_spectrum(x), expected, rtol=1e-9)


def test_the_spectrum_has_a_value_for_every_dimension():
    values = be.covariance_spectrum(torch.randn(5, 12))
    assert values.shape == (12,) and (values[5:] == 0).all()


def with_spectrum(eigenvalues, n=200):
    """Features (n, dim) whose covariance has exactly these eigenvalues."""
    eigenvalues = torch.as_tensor(eigenvalues, dtype=torch.float64)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(len(eigenvalues),) * 2))[0]
    return orthonormal(n, len(eigenvalues)) * (n * eigenvalues).sqrt() @ torch.from_numpy(rotation)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_a_power_law_gives_its_exponent_back(alpha):
    found = be.spectrum_decay(with_spectrum(3 * torch.arange(1, 81).double() ** -alpha))
    assert found.alpha == pytest.approx(alpha, abs=1e-6)
    assert found.r2 == pytest.approx(1) and (found.first, found.last) == (5, 50)


def test_the_fit_is_that_of_scipy_where_no_power_law_holds():
    eigenvalues = torch.exp(-torch.arange(60).double() / 15)
    found = be.spectrum_decay(with_spectrum(eigenvalues), first=3, last=40)
    line = linregress(np.log(np.arange(3, 41)), np.log(eigenvalues[2:40]))
    assert found.alpha == pytest.approx(-line.slope)
    assert found.r2 == pytest.approx(line.rvalue**2) and found.r2 < 0.95


def test_the_range_matters_and_what_is_outside_does_not():
    eigenvalues = torch.arange(1, 81).double() ** -1.0
    eigenvalues[:4] *= 50
    eigenvalues[50:] *= 0.01
    assert be.spectrum_decay(with_spectrum(eigenvalues)).alpha == pytest.approx(1, abs=1e-6)
    assert be.spectrum_decay(with_spectrum(eigenvalues), 1, 80).alpha > 1.5


def test_few_dimensions_shorten_the_range():
    found = be.spectrum_decay(with_spectrum(torch.arange(1, 13).double() ** -1.5))
    assert (found.first, found.last) == (2, 9)
    assert found.alpha == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize(
    ("features", "ranks", "message"),
    [
        (torch.randn(50, 20), (1, 30), r"<= 20 for features of shape \(50, 20\), got 1 to 30"),
        (torch.randn(9, 20), (1, 9), "<= 8 .*Take more images"),
        (torch.randn(50, 20), (0, 9), "got 0 to 9"),
        (torch.randn(50, 20), (7, 7), "got 7 to 7"),
        (torch.randn(50, 1).expand(50, 20), (1, 15), "collapsed"),
        (torch.full((9, 5), math.inf), (1, 3), "NaN or infinity"),
    ],
)
def test_a_decay_that_cannot_be_fitted_is_told(features, ranks, message):
    with pytest.raises(ValueError, match=message):
        be.spectrum_decay(features, *ranks)


def test_large_tables_take_the_short_way_to_the_same_numbers(monkeypatch):
    x = torch.randn(90, 70, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 70)
    functions = (be.effective_rank, be.rankme, lambda f: be.spectrum_decay(f).alpha)
    for features in (x, x.T):
        slow = [f(features) for f in functions]
        monkeypatch.setattr(spectra, "LARGE", 10)
        assert [f(features) for f in functions] == pytest.approx(slow, rel=1e-6)
        monkeypatch.undo()


def test_the_distance_to_the_identity_is_that_of_numpy_and_has_the_noise_of_independent_numbers():
    z = np.random.default_rng(0).normal(size=(2, 400, 12))
    c = np.corrcoef(z[0].T, z[0].T + z[1].T)[:12, 12:]
    near = be.distance_to_identity(c, pairs=400)
    off = c[~np.eye(12, dtype=bool)]
    assert near.distance == pytest.approx(np.linalg.norm(c - np.eye(12)) / np.sqrt(12))
    assert near.diagonal == pytest.approx(np.trace(c) / 12)
    assert near.rms == pytest.approx(np.sqrt(np.square(off).mean()))
    assert near.rms == pytest.approx(near.floor, rel=0.2)  # 132 draws of unrelated dimensions
    assert near.floor == pytest.approx(1 / np.sqrt(399))


def test_a_diagonal_below_one_is_all_of_the_distance_where_nothing_is_off_it():
    near = be.distance_to_identity(torch.tensor([[0.5, 0.0], [0.0, 0.75]]), 5)
    assert near == pytest.approx((math.sqrt((0.25 + 0.0625) / 2), 0.625, 0.0, 0.5))


@pytest.mark.parametrize(("c", "pairs"), [(torch.eye(3)[:2], 9), (torch.eye(3), 1)])
def test_a_distance_needs_a_square_and_two_pairs(c, pairs):
    with pytest.raises(ValueError, match="square"):
        be.distance_to_identity(c, pairs)
