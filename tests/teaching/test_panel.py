"""The live panel: what a notebook stores of it, and the world that it trains on in the page.

``browser/test_explorer.py`` plays with it, in JupyterLab and in an exported page.
"""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from javascript import run

from barlow_edu.teaching.explorer import LiveLambda
from barlow_edu.teaching.live import LiveProblem


def test_the_page_gets_the_values_to_start_from():
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append(dict(attributes))
    parser.feed(LiveLambda(lambd=0.3, dim=8, batch_size=32)._repr_html_())
    spec = next(json.loads(a["data-live"]) for a in seen if "data-live" in a)
    assert (spec["lambd"], spec["dim"], spec["batch"]) == (0.3, 8, 32)
    assert 8 in spec["dims"] and 32 in spec["batches"] and len(spec["colours"]) == 255 * 6


@pytest.mark.parametrize("wrong", [{"dim": 5}, {"batch_size": 1}, {"lambd": 0}, {"lambd": 11}])
def test_values_that_no_slider_has_are_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"no .*{name}={value}.*Choose"):
        LiveLambda(**wrong)


def test_a_step_in_the_page_is_that_of_torch():
    """One step of playground/live.js from the same weights and twins: loss, C, and the weights after Adam."""
    code = """
      const p = new live.LiveProblem(12, 64, 0.3), copy = (t) => Array.from(t.data);
      const before = copy(p.encoder.w.value);
      p.step();
      return [before, copy(p.x), p.terms.loss, Array.from(p.c), copy(p.encoder.w.value), p.distinct()];"""
    before, x, loss, c, after, distinct = run(code, module="live")
    problem = LiveProblem(12, 64, 0.3)
    twins = torch.tensor(x).reshape(2, 64, 32)
    problem.weights.data = torch.tensor(before).reshape(32, 12)
    problem.twins = lambda: twins
    terms = problem.step()
    np.testing.assert_allclose(loss, float(terms.loss), rtol=1e-4)
    np.testing.assert_allclose(c, problem.c.flatten(), atol=1e-5)
    np.testing.assert_allclose(after, problem.weights.detach().flatten(), atol=1e-4)
    assert distinct == pytest.approx(problem.distinct(), rel=1e-4)


@pytest.mark.parametrize(("rank", "batch"), [(8, 256), (5, 6)])
def test_the_floor_is_that_of_the_smallest_rank(rank, batch):
    """min over the trace t of D (1 − t / D)² + λ (t² / r − t² / D), on a grid."""
    t, d = np.linspace(0, 24, 200001), 24
    lowest = (d * (1 - t / d) ** 2 + 0.3 * (t**2 / rank - t**2 / d)).min()
    code = "return new live.LiveProblem(24, given.batch, 0.3).floor;"
    assert run(code, {"batch": batch}, "live") == pytest.approx(lowest, rel=1e-6)


def test_the_twins_in_the_page_are_of_the_same_world():
    """Variance 1, and the correlations between the views that live.py has."""
    x = run("return Array.from(new live.LiveProblem(2, 2000, 1).x.data);", module="live")
    a, b = np.reshape(x, (2, 2000, 32))
    np.testing.assert_allclose([a.var(0), b.var(0)], 1, atol=0.1)
    both = np.corrcoef(a.T, b.T)
    np.testing.assert_allclose(both[:32, 32:].diagonal(), LiveProblem().reliability, atol=0.06)
    off = both[:32, 32:][~np.eye(32, dtype=bool)]
    assert np.abs(off).max() < 0.12


@pytest.mark.parametrize(("dim", "lambd", "least", "most"), [(24, 0, 1, 1.5), (8, 1, 7, 8)])
def test_what_lambda_does_in_the_page(dim, lambd, least, most):
    code = """
      const p = new live.LiveProblem(given.dim, 256, given.lambd);
      for (let i = 0; i < 600; i += 1) p.step();
      return p.distinct();"""
    assert least <= run(code, {"dim": dim, "lambd": lambd}, "live") <= most
