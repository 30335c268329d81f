"""The loss against the paper's formula by loops, finite differences, numpy, and autograd through the plain loss."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_edu.loss import (
    LossTerms,
    barlow_twins_loss,
    cheaper_form,
    cross_correlation,
    loss_floor,
    plain_loss,
    standardize,
)

FORMS = ("matrix", "gram")
SHAPES = [(2, 1), (3, 5), (6, 6), (17, 4), (8, 40)]


def pair(n, d, seed=0, dtype=torch.float64):
    """Two correlated batches of embeddings, with shifts and scales of their own."""
    g = torch.Generator().manual_seed(seed)
    shared, *noise = torch.randn(3, n, d, generator=g, dtype=torch.float64)
    shift, scale = torch.randn(2, d, generator=g, dtype=torch.float64)
    z_a = (shared + 0.5 * noise[0]) * scale.exp() + 3 * shift
    return z_a.to(dtype), (shared + noise[1]).to(dtype)


def loop_correlation(z_a, z_b):
    """Equation 2 of the paper on mean-centred embeddings, entry by entry, in Python floats."""
    z_a, z_b = z_a.tolist(), z_b.tolist()
    n, d = len(z_a), len(z_a[0])

    def centred(z, i):
        mean = sum(row[i] for row in z) / n
        return [row[i] - mean for row in z]

    c = torch.zeros(d, d, dtype=torch.float64)
    for i, j in itertools.product(range(d), repeat=2):
        a, b = centred(z_a, i), centred(z_b, j)
        norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        c[i, j] = sum(x * y for x, y in zip(a, b, strict=True)) / norms
    return c


def loop_loss(c, lambd):
    """Equation 1, entry by entry."""
    on = off = 0.0
    for i, row in enumerate(c.tolist()):
        for j, value in enumerate(row):
            if i == j:
                on += (1 - value) ** 2
            else:
                off += value**2
    return on + lambd * off, on, off


# --- the values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n, d", SHAPES)
def test_correlation_is_equation_2(n, d):
    z_a, z_b = pair(n, d)
    torch.testing.assert_close(
        cross_correlation(z_a, z_b), loop_correlation(z_a, z_b), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("lambd", [0.0, 0.005, 1.0, 3.0])
def test_loss_is_equation_1(n, d, lambd, form):
    z_a, z_b = pair(n, d)
    terms = barlow_twins_loss(z_a, z_b, lambd, form)
    expected = loop_loss(loop_correlation(z_a, z_b), lambd)
    got = terms.loss.item(), terms.invariance.item(), terms.redundancy.item()
    assert got == pytest.approx(expected, rel=1e-11, abs=1e-11)
    torch.testing.assert_close(terms.diagonal, loop_correlation(z_a, z_b).diagonal())
    assert plain_loss(z_a, z_b, lambd).item() == pytest.approx(expected[0], rel=1e-11, abs=1e-11)


def test_a_case_solved_by_hand():
    # Four samples, two dimensions with values -1 and 1: every mean is 0, every variance 1.
    z_a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    # First dimension: one sign of four changed, so C_00 = (1 + 1 + 1 - 1) / 4 ... and so on.
    z_b = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    c = cross_correlation(z_a, z_b)
    assert c.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    for form in FORMS:
        terms = barlow_twins_loss(z_a, z_b, lambd=0.5, form=form)
        assert [t.tolist() for t in terms] == [1.5, 1.0, 1.0, [1.0, 0.0]]


def test_correlation_agrees_with_numpy_and_torch():
    z_a, z_b = pair(50, 7)
    c = cross_correlation(z_a, z_b)
    stacked = torch.cat([z_a, z_b], 1).T  # corrcoef wants variables in rows
    np.testing.assert_allclose(c, np.corrcoef(stacked)[:7, 7:], rtol=0, atol=1e-13)
    torch.testing.assert_close(c, torch.corrcoef(stacked)[:7, 7:], rtol=0, atol=1e-13)


def test_standardize_agrees_with_batch_norm():
    z, _ = pair(20, 5)
    for eps in (0.0, 1e-5, 0.3):  # batch_norm refuses 0
        expected = torch.nn.functional.batch_norm(z, None, None, training=True, eps=eps or 1e-30)
        torch.testing.assert_close(standardize(z, eps), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_float32_keeps_its_digits_on_a_large_matrix(form):
    """A sum of millions of squares in float32 loses digits unless it is done in parts."""
    z_a, z_b = pair(64, 3000, dtype=torch.float32)
    got = barlow_twins_loss(z_a, z_b, 0.005, form)
    exact = barlow_twins_loss(z_a.double(), z_b.double(), 0.005, "gram")
    for value, expected in zip(got, exact, strict=True):
        torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=2e-6)


def test_auto_takes_the_cheaper_form():
    assert cheaper_form(256, 8192) == "gram"
    assert cheaper_form(2048, 128) == "matrix"
    for n, d in [(4, 30), (30, 4)]:
        z_a, z_b = pair(n, d, dtype=torch.float32)
        by_hand = barlow_twins_loss(z_a, z_b, form=cheaper_form(n, d))
        assert torch.equal(barlow_twins_loss(z_a, z_b).loss, by_hand.loss)


# --- the gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n, d", [(3, 5), (6, 6), (9, 2)])
def test_gradients_by_finite_differences(n, d, form):
    inputs = [z.requires_grad_() for z in pair(n, d)]
    assert torch.autograd.gradcheck(
        lambda a, b: tuple(barlow_twins_loss(a, b, 0.3, form)), inputs, atol=1e-6
    )


def test_gradients_of_the_building_blocks_by_finite_differences():
    z_a, z_b = (z.requires_grad_() for z in pair(5, 3))
    assert torch.autograd.gradcheck(cross_correlation, (z_a, z_b), atol=1e-6)
    assert torch.autograd.gradcheck(lambda z: standardize(z, 0.1), z_a, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("member", LossTerms._fields)
def test_each_term_is_differentiable_alone(member, form):
    z_a, z_b = (z.requires_grad_() for z in pair(7, 4))
    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    value = getattr(barlow_twins_loss(z_a, z_b, 0.1, form), member)
    c = cross_correlation(z_a, z_b)
    on, off = (1 - c.diagonal()).square().sum(), c.square().sum() - c.diagonal().square().sum()
    expected = {
        "loss": on + 0.1 * off,
        "invariance": on,
        "redundancy": off,
        "diagonal": c.diagonal(),
    }[member]
    if member == "diagonal":
        value, expected = (value * weight).sum(), (expected * weight).sum()
    for got, want in zip(
        torch.autograd.grad(value, (z_a, z_b)),
        torch.autograd.grad(expected, (z_a, z_b)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_orthogonal_to_the_column_and_to_ones(form):
    """Shift and scale change nothing, so the gradient has no part along them."""
    z_a, z_b = (z.requires_grad_() for z in pair(12, 9))
    barlow_twins_loss(z_a, z_b, 0.1, form).loss.backward()
    for z in (z_a, z_b):
        assert z.grad.abs().max() > 1e-4
        assert z.grad.sum(0).abs().max() < 1e-13
        assert (z.grad * z.detach()).sum(0).abs().max() < 1e-13


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_passes_to_one_view_when_the_other_is_detached(form):
    z_a, z_b = (z.requires_grad_() for z in pair(6, 4))
    both = torch.autograd.grad(barlow_twins_loss(z_a, z_b, 0.1, form).loss, z_a)
    one = torch.autograd.grad(barlow_twins_loss(z_a, z_b.detach(), 0.1, form).loss, z_a)
    torch.testing.assert_close(one, both)
    with torch.no_grad():
        assert not barlow_twins_loss(z_a, z_b, 0.1, form).loss.requires_grad


@pytest.mark.parametrize("form", FORMS)
def test_inputs_and_leaf_gradients_survive_two_backward_passes(form):
    z_a, z_b = (z.requires_grad_() for z in pair(6, 4))
    before = z_a.detach().clone()
    loss = barlow_twins_loss(z_a, z_b, 0.1, form).loss
    loss.backward(retain_graph=True)
    once = z_a.grad.clone()
    loss.backward()
    torch.testing.assert_close(z_a.grad, 2 * once)
    assert torch.equal(z_a.detach(), before)


# --- properties ---------------------------------------------------------------------------------

sizes = st.tuples(st.integers(2, 12), st.integers(1, 12), st.integers(0, 10_000))
lambdas = st.sampled_from([0.0, 0.001, 0.005, 0.1, 1.0, 2.5])
quick = settings(max_examples=60, deadline=None)


def losses(z_a, z_b, lambd):
    return [barlow_twins_loss(z_a, z_b, lambd, form).loss.item() for form in FORMS]


@quick
@given(sizes, lambdas)
def test_both_forms_and_the_plain_loss_agree_in_value_and_gradient(size, lambd):
    z_a, z_b = (z.requires_grad_() for z in pair(*size))
    steepest = max(1 / z.detach().std(0, correction=0).min().item() for z in (z_a, z_b))
    losses = [barlow_twins_loss(z_a, z_b, lambd, form).loss for form in FORMS]
    plain, *closed = (
        [loss.detach(), *torch.autograd.grad(loss, (z_a, z_b))]
        for loss in (plain_loss(z_a, z_b, lambd), *losses)
    )
    for results in closed:
        for got, expected in zip(results, plain, strict=True):
            # Gradients are divided by the standard deviation, and so are their roundings.
            scale = 1 + steepest + expected.abs().max().item()
            torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10 * scale)


def test_the_plain_loss_has_the_paper_s_lambda_and_cannot_take_a_constant():
    z_a, z_b = pair(9, 4)
    torch.testing.assert_close(plain_loss(z_a, z_b), barlow_twins_loss(z_a, z_b).loss)
    assert torch.equal(plain_loss(z_a, z_b), plain_loss(z_a, z_b, 0.005))
    z_a[:, 1] = 3.0
    assert torch.isnan(plain_loss(z_a, z_b))


@quick
@given(sizes, lambdas, st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(size, lambd, random):
    z_a, z_b = pair(*size)
    order = random.sample(range(size[0]), size[0])
    assert losses(z_a[order], z_b[order], lambd) == pytest.approx(
        losses(z_a, z_b, lambd), rel=1e-10, abs=1e-10
    )


@quick
@given(sizes, lambdas, st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_shift_and_positive_scale_of_a_dimension_do_not_matter(size, lambd, shift, scale):
    z_a, z_b = pair(*size)
    moved = z_a.clone()
    moved[:, 0] = moved[:, 0] * scale + shift
    assert losses(moved, z_b, lambd) == pytest.approx(losses(z_a, z_b, lambd), rel=1e-6, abs=1e-7)


@quick
@given(sizes, lambdas)
def test_a_change_of_sign_of_one_view_changes_the_sign_of_c(size, lambd):
    z_a, z_b = pair(*size)
    torch.testing.assert_close(cross_correlation(-z_a, z_b), -cross_correlation(z_a, z_b))


@quick
@given(sizes, lambdas)
def test_swapping_the_views_transposes_c_and_keeps_the_loss(size, lambd):
    z_a, z_b = pair(*size)
    torch.testing.assert_close(cross_correlation(z_b, z_a), cross_correlation(z_a, z_b).T)
    assert losses(z_b, z_a, lambd) == pytest.approx(losses(z_a, z_b, lambd), rel=1e-10, abs=1e-10)


@quick
@given(sizes, lambdas)
def test_no_embeddings_are_below_the_floor(size, lambd):
    n, d, _ = size
    floor = loss_floor(n, d, lambd)
    z_a, z_b = pair(*size)
    same = z_a, z_a  # equal views come closest
    for views in ((z_a, z_b), same):
        assert min(losses(*views, lambd)) >= floor - 1e-9 * (1 + floor)


@quick
@given(sizes)
def test_correlations_stay_in_range_and_equal_views_have_diagonal_one(size):
    z_a, z_b = (z.float() for z in pair(*size))
    assert cross_correlation(z_a, z_b).abs().max() <= 1 + 1e-6
    for form in FORMS:
        assert barlow_twins_loss(z_a, z_b, form=form).diagonal.abs().max() <= 1 + 1e-6
        terms = barlow_twins_loss(z_a, z_a, form=form)
        torch.testing.assert_close(terms.diagonal, torch.ones(size[1]), rtol=0, atol=1e-5)
        assert terms.invariance < 1e-9 * size[1]


# --- the floor ----------------------------------------------------------------------------------


def test_floor_by_hand():
    assert loss_floor(5, 4, 0.005) == 0  # four centred samples fill four dimensions
    assert loss_floor(3, 4, 1.0) == pytest.approx(2.0)  # rank 2 of 4: D - r
    assert loss_floor(3, 4, 7.0) == pytest.approx(2.0)
    assert loss_floor(2, 1, 0.5) == 0
    # C_ii = t everywhere, ‖C‖² = 8 t²: the parabola 4 (1 - t)² + 0.1 (8 t² - 4 t²) at its minimum.
    t = np.linspace(0, 1, 100_001)
    assert loss_floor(3, 4, 0.1) == pytest.approx((4 * (1 - t) ** 2 + 0.4 * t**2).min())


@pytest.mark.parametrize("lambd", [1.0, 2.5])
def test_with_a_large_lambda_switched_off_dimensions_reach_the_floor(lambd):
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # uncorrelated
    z = torch.cat([signs, torch.full((4, 2), 0.3)], 1)
    assert barlow_twins_loss(z, z, lambd).loss.item() == pytest.approx(2, abs=1e-6)
    assert loss_floor(4, 5, lambd) == pytest.approx(2)


@pytest.mark.parametrize("n, d, lambd", [(4, 7, 0.1), (5, 6, 1.0), (9, 6, 0.1)])
def test_free_embeddings_reach_the_floor(n, d, lambd):
    z_a, z_b = (z.requires_grad_() for z in pair(n, d, seed=3))
    optimiser = torch.optim.LBFGS([z_a, z_b], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = barlow_twins_loss(z_a, z_b, lambd).loss
        loss.backward()
        return loss

    optimiser.step(closure)
    floor = loss_floor(n, d, lambd)
    assert closure().item() == pytest.approx(floor, rel=1e-5, abs=1e-6)


# --- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(dtype, form):
    z_a, z_b = (z.requires_grad_() for z in pair(16, 12, dtype=dtype))
    full = [z.detach().float().requires_grad_() for z in (z_a, z_b)]
    terms, expected = (barlow_twins_loss(*v, 0.01, form) for v in ((z_a, z_b), full))
    for got, want in zip(terms, expected, strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, want)
    terms.loss.backward()
    expected.loss.backward()
    for half, whole in zip((z_a, z_b), full, strict=True):
        assert half.grad.dtype == dtype
        torch.testing.assert_close(half.grad, whole.grad.to(dtype), rtol=0, atol=0)
    assert cross_correlation(z_a, z_b).dtype == torch.float32


@pytest.mark.parametrize("form", FORMS)
def test_autocast_changes_nothing(form):
    z_a, z_b = (z.requires_grad_() for z in pair(16, 12, dtype=torch.float32))

    def everything():
        terms = barlow_twins_loss(z_a, z_b, 0.01, form)
        c = cross_correlation(z_a, z_b)
        # The backward pass too: many training loops call it inside the autocast block.
        grads = torch.autograd.grad(terms.loss, (z_a, z_b))
        through_c = torch.autograd.grad(standardize(z_a).pow(3).sum(), z_a)
        return [*terms, c, *grads, *through_c]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z_a @ z_b.T).dtype == torch.bfloat16  # autocast is on
        cast = everything()
    for got, want in zip(cast, plain, strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, want)


def test_float64_stays_float64():
    z_a, z_b = pair(4, 3)
    assert barlow_twins_loss(z_a, z_b).loss.dtype == torch.float64


# --- columns without variance, NaN --------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1000.1, -3.3e-7, 1e20])
@pytest.mark.parametrize("n", [2, 7, 256, 1001])
def test_a_constant_column_gives_a_finite_loss_and_gradient(n, value, dtype, form):
    z_a, z_b = pair(n, 5, dtype=dtype)
    z_a[:, 1] = value
    z_a.requires_grad_(), z_b.requires_grad_()
    assert torch.equal(standardize(z_a)[:, 1], torch.zeros(n, dtype=dtype))
    assert torch.equal(cross_correlation(z_a, z_b)[1], torch.zeros(5, dtype=dtype))
    terms = barlow_twins_loss(z_a, z_b, 0.1, form)
    terms.loss.backward()
    assert terms.diagonal[1] == 0
    for z in (z_a, z_b):
        assert torch.isfinite(z.grad).all()
        assert z.grad.abs().max() > 0
    assert torch.equal(z_a.grad[:, 1], torch.zeros(n, dtype=dtype))
    # The other dimensions do not notice: a dead one adds (1 - 0)² and its row of C is zero.
    keep = [0, 2, 3, 4]
    rest = barlow_twins_loss(z_a[:, keep], z_b[:, keep], 0.1, form).loss
    row = cross_correlation(z_a, z_b)[keep, 1].square().sum() * 0.1
    assert terms.loss.item() == pytest.approx(rest.item() + 1 + row.item(), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_rounding_of_a_constant_is_no_variance(form):
    z_a, z_b = pair(64, 4, dtype=torch.float32)
    z_a[:, 2] = 1000.1
    z_a[::2, 2] = torch.nextafter(
        z_a[::2, 2], torch.tensor(torch.inf)
    )  # one unit in the last place
    assert z_a[:, 2].unique().numel() == 2
    z_a.requires_grad_()
    terms = barlow_twins_loss(z_a, z_b, 0.1, form)
    terms.loss.backward()
    assert terms.diagonal[2] == 0
    assert torch.equal(z_a.grad[:, 2], torch.zeros(64))


@pytest.mark.parametrize(("roundings", "counts"), [(1, 0), (3, 0), (5, 1), (9, 1), (30, 1)])
def test_a_deviation_of_more_than_four_roundings_of_the_mean_counts(roundings, counts):
    """At 1040 one rounding of float32, eps x mean, is about the distance 2^-13 between two numbers."""
    sign = torch.tensor([1.0, -1.0]).repeat(32)[:, None]
    torch.testing.assert_close(standardize(1040 + sign * roundings * 2.0**-13), counts * sign)


def test_a_small_but_real_variance_counts():
    z, _ = pair(64, 1, dtype=torch.float64)
    for shift, scale in [(1000.0, 0.05), (0.0, 1e-12), (1e6, 10.0)]:
        column = ((z - z.mean()) / z.std(correction=0) * scale + shift).float()
        exact = standardize(column.double())
        assert exact.square().mean().item() == pytest.approx(1, rel=1e-6)
        torch.testing.assert_close(standardize(column).double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_all_embeddings_equal_is_the_full_collapse(form):
    z = torch.full((8, 5), 2.7).requires_grad_()
    terms = barlow_twins_loss(z, z, form=form)
    terms.loss.backward()
    assert terms.loss == 5  # every (1 - 0)², and nothing to decorrelate
    assert torch.equal(z.grad, torch.zeros(8, 5))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_are_not_hidden(bad, form):
    for row in (0, 3):
        z_a, z_b = pair(6, 4, dtype=torch.float32)
        z_a[row, 2] = bad
        z_a.requires_grad_()
        terms = barlow_twins_loss(z_a, z_b, 0.1, form)
        assert torch.isnan(terms.loss) and torch.isnan(terms.diagonal[2])
        terms.loss.backward()
        assert torch.isnan(z_a.grad[:, 2]).any()
        assert torch.isnan(cross_correlation(z_a, z_b)[2]).all()
        assert torch.isnan(standardize(z_a)[:, 2]).all()


# --- memory layout ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_memory_layout_does_not_matter(form):
    z_a, z_b = pair(6, 4)
    expected = barlow_twins_loss(z_a, z_b, 0.1, form).loss
    strided = torch.stack([z_a, z_b], 2)
    for a, b in [
        (z_a.T.contiguous().T, z_b),
        (strided[..., 0], strided[..., 1]),
        (z_a.flip(0), z_b.flip(0)),
    ]:
        torch.testing.assert_close(barlow_twins_loss(a, b, 0.1, form).loss, expected)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [cross_correlation, barlow_twins_loss])
@pytest.mark.parametrize(
    "z_a, z_b, named",
    [
        (torch.zeros(4, 3), torch.zeros(4, 2), [r"\(4, 3\)", r"\(4, 2\)"]),
        (torch.zeros(4, 3), torch.zeros(5, 3), [r"\(4, 3\)", r"\(5, 3\)"]),
        (torch.zeros(4, 3, 1), torch.zeros(4, 3, 1), ["2-D", r"\(4, 3, 1\)"]),
        (torch.zeros(4), torch.zeros(4), ["2-D", r"\(4,\)"]),
        (torch.zeros(1, 3), torch.zeros(1, 3), ["two samples", r"\(1, 3\)"]),
        (torch.zeros(0, 3), torch.zeros(0, 3), ["two samples", r"\(0, 3\)"]),
        (torch.zeros(4, 3).long(), torch.zeros(4, 3).long(), ["floating point", "int64"]),
        (torch.zeros(4, 3), torch.zeros(4, 3).long(), ["floating point", "int64"]),
        (torch.zeros(4, 0), torch.zeros(4, 0), ["2-D", r"\(4, 0\)"]),
        (torch.zeros(4, 3), torch.zeros(4, 3).double(), ["precision", "float32", "float64"]),
        (np.zeros((4, 3)), torch.zeros(4, 3), ["tensors, got a ndarray"]),
        (torch.zeros(4, 3), [[0.0]], ["tensors, got a list"]),
    ],
)
def test_bad_embeddings_are_named(function, z_a, z_b, named):
    for text in named:
        with pytest.raises(ValueError, match=text):
            function(z_a, z_b)


def test_views_of_unequal_half_precision_are_fine():
    z_a, z_b = (z.float() for z in pair(8, 3))
    mixed = barlow_twins_loss(z_a.bfloat16(), z_b).loss
    torch.testing.assert_close(mixed, barlow_twins_loss(z_a.bfloat16().float(), z_b).loss)


def test_bad_options_are_named():
    z_a, z_b = pair(4, 3)
    for lambd, named in [(-0.1, "-0.1"), (math.nan, "nan")]:
        with pytest.raises(ValueError, match=f"lambd .* {named}"):
            barlow_twins_loss(z_a, z_b, lambd)
    with pytest.raises(ValueError, match="matrix, gram, got 'fast'"):
        barlow_twins_loss(z_a, z_b, form="fast")
    with pytest.raises(ValueError, match=r"2-D .*\(4,\)"):
        standardize(z_a[:, 0])


@pytest.mark.parametrize("values", [(1, 4, 0.1), (4, 0, 0.1), (4, 4, -1.0), (4, 4, math.nan)])
def test_floor_names_a_bad_value(values):
    n, d, lambd = values
    with pytest.raises(ValueError, match=f"batch_size={n}, dim={d}, lambd={lambd}"):
        loss_floor(*values)
