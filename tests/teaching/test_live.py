"""The small world behind the live panel does what its text says."""

import numpy as np
import pytest
import torch

from barlow_edu.evaluation.spectra import effective_rank
from barlow_edu.teaching.live import CHANNELS, SIGNALS, LiveProblem


@pytest.fixture(autouse=True)
def one_thread():
    """The matrices are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(steps=250, **settings):
    problem = LiveProblem(**settings)
    for _ in range(steps):
        problem.step()
    return problem


def test_twins_agree_in_eight_channels_and_in_no_other():
    a, b = (x.numpy() for x in LiveProblem(batch_size=20000).twins())
    c = np.corrcoef(a.T, b.T)
    within, between = c[:CHANNELS, :CHANNELS], c[:CHANNELS, CHANNELS:]
    np.testing.assert_allclose(within, np.eye(CHANNELS), atol=0.04)
    expected = np.zeros(CHANNELS)
    expected[:SIGNALS] = np.linspace(0.98, 0.6, SIGNALS)
    np.testing.assert_allclose(between, np.diag(expected), atol=0.04)


def test_a_step_measures_the_batch_it_trained_on():
    problem = LiveProblem(dim=5, batch_size=40, lambd=0.3)
    seen = []
    embed = problem.embed
    problem.embed = lambda: seen.append(embed()) or seen[-1]
    terms = problem.step()
    z_a, z_b = (z.detach().numpy() for z in seen[0])
    c = np.corrcoef(z_a.T, z_b.T)[:5, 5:]
    np.testing.assert_allclose(problem.c.numpy(), c, atol=1e-5)
    off = (c**2).sum() - (np.diag(c) ** 2).sum()
    assert float(terms.loss) == pytest.approx(((1 - np.diag(c)) ** 2).sum() + 0.3 * off, rel=1e-4)
    assert problem.steps == 1 and not problem.c.requires_grad


def test_without_redundancy_term_all_dimensions_become_one():
    problem = trained(300, lambd=0)
    assert problem.c.abs().min() > 0.85
    assert problem.distinct() < 2


def test_eight_dimensions_have_a_signal_each_however_large_lambda_is():
    for lambd in (0.1, 10):
        problem = trained(dim=8, lambd=lambd)
        off = problem.c - problem.c.diagonal().diag()
        assert problem.c.diagonal().mean() > 0.6
        assert off.square().mean().sqrt() < 0.2
        assert problem.distinct() > 7.5


def test_with_too_few_signals_a_large_lambda_breaks_invariance():
    gentle, harsh = trained(dim=24, lambd=0.005), trained(dim=24, lambd=10)
    assert gentle.c.diagonal().mean() > 0.8
    assert harsh.c.diagonal().mean() < 0.2


def test_lambda_can_be_turned_while_it_trains():
    problem = trained(lambd=0)
    problem.lambd = 0.05
    for _ in range(200):
        problem.step()
    assert problem.distinct() > 5


@pytest.mark.parametrize("dim, batch_size", [(24, 256), (8, 64), (24, 16)])
@pytest.mark.parametrize("lambd", [0, 0.01, 1, 10])
def test_the_mean_loss_stays_above_the_floor_and_comes_near(dim, batch_size, lambd):
    problem = trained(dim=dim, batch_size=batch_size, lambd=lambd)
    losses = [float(problem.step().loss) for _ in range(50)]
    assert np.mean(losses) >= problem.floor
    noise = lambd * dim * (dim - 1) / (batch_size - 1)
    assert np.mean(losses) < 1.5 * (problem.floor + noise) + 0.25 * dim


@pytest.mark.parametrize("rank, settings", [(8, {"dim": 24}), (5, {"dim": 24, "batch_size": 6})])
def test_the_floor_is_that_of_the_smallest_rank(rank, settings):
    """min over the trace t of D (1 − t / D)² + λ (t² / r − t² / D), on a grid."""
    problem = LiveProblem(lambd=0.3, **settings)
    t, d = np.linspace(0, 24, 200001), 24
    lowest = (d * (1 - t / d) ** 2 + 0.3 * (t**2 / rank - t**2 / d)).min()
    assert problem.floor == pytest.approx(lowest, rel=1e-6)


def test_distinct_is_the_effective_rank_of_many_standardised_embeddings():
    problem = trained(60, dim=12, batch_size=20000)
    z, _ = problem.embed()
    z = z.detach()
    assert problem.distinct() == pytest.approx(effective_rank(z / z.std(0)), rel=0.02)


def test_reset_starts_again_from_the_same_weights():
    problem = LiveProblem(dim=6)
    start = problem.weights.detach().clone()
    problem.step()
    assert not torch.equal(problem.weights, start)
    problem.reset()
    assert torch.equal(problem.weights, start) and problem.steps == 0
    problem.reset(9)
    assert problem.c.shape == (9, 9)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"batch_size": 1}, {"lambd": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="loss_floor needs"):
        LiveProblem(**wrong)
