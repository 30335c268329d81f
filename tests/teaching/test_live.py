"""The small world behind the live panel does what its text says."""

import numpy as np
import pytest
import torch

import barlow_edu as be
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
    # C of N fresh twins has rank N − 1 at most, and its mean rank 8.
    floor = max(be.loss_floor(n, dim, lambd) for n in (batch_size, SIGNALS + 1))
    assert np.mean(losses) >= floor
    noise = lambd * dim * (dim - 1) / (batch_size - 1)
    assert np.mean(losses) < 1.5 * (floor + noise) + 0.25 * dim


def test_distinct_is_the_effective_rank_of_many_standardised_embeddings():
    problem = trained(60, dim=12, batch_size=20000)
    z, _ = problem.embed()
    z = z.detach()
    assert problem.distinct() == pytest.approx(effective_rank(z / z.std(0)), rel=0.02)


def test_every_problem_starts_from_the_same_weights():
    problem, again = LiveProblem(dim=6), LiveProblem(dim=6)
    assert torch.equal(problem.weights, again.weights)
    problem.step()
    assert not torch.equal(problem.weights, again.weights)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"batch_size": 1}, {"lambd": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="loss_floor needs"):
        LiveProblem(**wrong)
