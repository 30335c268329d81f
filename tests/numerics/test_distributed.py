"""Several processes against one: loss, gradients, steps, batch norm; and what the processes say to each other."""

import logging
import threading
from logging.handlers import BufferingHandler

import pytest
import torch
import torch.distributed as dist
from tiny import CONFIG, tiny_encoder, tiny_images
from torch import nn

from barlow_edu.loss import barlow_twins_loss, cheaper_form, cross_correlation, standardize
from barlow_edu.numerics import batchnorm, distributed
from barlow_edu.numerics.batchnorm import synchronize_batch_norm
from barlow_edu.numerics.distributed import all_gather, all_reduce, world_size
from barlow_edu.numerics.optim import build_optimizer
from barlow_edu.scale import exactness
from barlow_edu.scale.processes import run_processes
from barlow_edu.training import pretrain

FORMS = ("matrix", "gram")
COUNTS = (2, 4)
N, D = 16, 6


def embeddings(dtype=torch.float64):
    """Two correlated batches; shares of unequal mean, a large mean, and columns without variance."""
    g = torch.Generator().manual_seed(1)
    shared, *noise = torch.randn(3, N, D, generator=g, dtype=torch.float64)
    z_a, z_b = shared + noise[0] + torch.arange(N).view(-1, 1) / 4, shared + noise[1]
    z_a[:, 2] += 1000
    z_a[:, 4] = 1000.1  # a constant
    return z_a.to(dtype), z_b.to(dtype)


def share(x):
    return x.chunk(world_size())[distributed.rank()].detach().clone().requires_grad_()


def loss_of_embeddings(form, dtype):
    """The terms, and the gradients of this share's rows as DistributedDataParallel would average them."""
    z = [share(x) for x in embeddings(dtype)]
    terms = barlow_twins_loss(*z, 0.1, form)
    terms.loss.backward()
    return [t.detach() for t in terms], [x.grad / world_size() for x in z]


def building_blocks():
    z_a, z_b = map(share, embeddings())
    weights = torch.arange(36.0, dtype=torch.float64).view(6, 6)
    c = cross_correlation(z_a, z_b)
    (c * weights).sum().backward()
    out = standardize(z_a, 0.1)
    (grad,) = torch.autograd.grad(out.pow(3).sum(), z_a)  # each process's own sum
    return c.detach(), z_a.grad / world_size(), z_b.grad / world_size(), out.detach(), grad


def batch_norms(dtype, momentum):
    """Forward, backward and running averages of batch norms with and without weights."""
    g = torch.Generator().manual_seed(2)
    x = (
        3
        + 2 * torch.randn(N, 5, 3, 3, generator=g, dtype=torch.float64)
        + torch.arange(N).view(-1, 1, 1, 1)
    )
    weights = torch.randn(N, 5, 3, 3, generator=g, dtype=torch.float64)
    results = []
    for norm, narrow in (
        (nn.BatchNorm2d(5, momentum=momentum), False),
        (nn.BatchNorm1d(5, affine=False, momentum=momentum), True),
        (nn.BatchNorm1d(5, track_running_stats=False), True),
    ):
        torch.manual_seed(0)
        for p in norm.parameters():
            nn.init.normal_(p)
        norm = synchronize_batch_norm(norm.to(torch.float32 if dtype == torch.bfloat16 else dtype))
        own, w = (share(t[..., 0, 0] if narrow else t) for t in (x.to(dtype), weights.to(dtype)))
        for _ in range(2):
            out = norm(own)
        (out * w.detach()).sum().backward()
        grads = [distributed.add_up(p.grad, distributed.active_group()) for p in norm.parameters()]
        results.append((out.detach(), own.grad, grads, [b.double() for b in norm.buffers()]))
        norm.eval()
        results.append((norm(own).detach(), own.grad, [], []))
    return results


def collectives():
    """all_reduce and all_gather with their gradients, agree, from_first, alone, unequal shares."""
    rank, count = distributed.rank(), world_size()
    x = torch.tensor([[1.0 + rank, 2.0]], requires_grad=True)
    # The objective is the sum of the processes': process r weighs the result with r + 1.
    (all_reduce(x.square()).sum() * (rank + 1)).backward()
    reduced, x.grad = x.grad.tolist(), None
    rows = all_gather(x)
    (rows * torch.arange(count).view(-1, 1) * (rank + 1)).sum().backward()
    told = [distributed.agree(rank * 3), distributed.from_first(lambda: f"from {rank}")]
    try:
        distributed.from_first(lambda: {}["missing"])
    except KeyError as error:
        told.append(str(error))
    with distributed.alone():
        told += [world_size(), distributed.rank(), torch.equal(all_reduce(x), x)]
    try:
        barlow_twins_loss(torch.randn(3 + rank, 4), torch.randn(3 + rank, 4))
    except ValueError as error:
        told.append(str(error))
    return reduced, rows.tolist(), x.grad.tolist(), told


def warnings_of_batch_norm():
    """What is logged in three steps of the loss after norms of several kinds, the first without a graph."""
    heard = {}
    for kind in ("own", "evaluating", "synchronised", "layer norm"):
        norm = nn.LayerNorm(4) if kind == "layer norm" else nn.BatchNorm1d(4)
        net = nn.Sequential(nn.Linear(3, 4), norm, nn.ReLU(), nn.Linear(4, 2))
        net.train(kind != "evaluating")
        net = synchronize_batch_norm(net) if kind == "synchronised" else net
        batchnorm._looked, handler = False, BufferingHandler(99)
        logging.getLogger("barlow_edu").addHandler(handler)
        torch.manual_seed(distributed.rank())
        for step in range(3):
            with torch.set_grad_enabled(step > 0):
                barlow_twins_loss(net(torch.randn(8, 3)), net(torch.randn(8, 3)))
        logging.getLogger("barlow_edu").removeHandler(handler)
        heard[kind] = [record.getMessage() for record in handler.buffer]
    return heard


STEPS = {"sgd": 0.01, "lars": 0.5, "adamw": 0.001}  # optimizer: learning rate


def trained(optimizer, form, steps=3):
    """Weights and running averages after some steps of the package's model."""
    model = exactness.small_model()
    model.config["form"] = form
    parallel = distributed.data_parallel(synchronize_batch_norm(model))
    update = build_optimizer(optimizer, model, lr=STEPS[optimizer], weight_decay=1e-4)
    for step in range(steps):
        loss, _ = parallel(*map(exactness.share, exactness.batch(step)))
        update.zero_grad()
        loss.backward()
        update.step()
    return {name: value.double() for name, value in model.state_dict().items()}


def everything():
    """All that is measured in a group of processes: they are started once."""
    return {
        "heard": warnings_of_batch_norm(),
        "gradients": exactness.all_gradients(),
        "trained": {(o, f): trained(o, f) for o in STEPS for f in FORMS},
        "embeddings": {
            (f, d): loss_of_embeddings(f, d)
            for f in FORMS
            for d in (torch.float64, torch.float32, torch.bfloat16)
        },
        "blocks": building_blocks(),
        "norms": {
            (d, m): batch_norms(d, m)
            for d in (torch.float64, torch.float32, torch.bfloat16)
            for m in (0.1, None)
        },
        "published": published(),
        "collectives": collectives() if world_size() > 1 else None,
    }


def published():
    """The gradient of this share with the published code's scale, and of the blind all-reduce itself."""
    z = [share(x) for x in embeddings()]
    loss = distributed.published_scale(barlow_twins_loss(*z, 0.1).loss, world_size())
    return loss.item(), [g / world_size() for g in torch.autograd.grad(loss, z)]


@pytest.fixture(scope="module")
def one():
    """This process, on its own, with the whole batch."""
    return everything()


@pytest.fixture(scope="module", params=COUNTS)
def several(request):
    """What 2 and 4 processes found, by rank."""
    return run_processes(everything, request.param)


def joined(several, pick):
    """The shares of all processes one below the other."""
    return torch.cat([pick(found) for found in several])


# --- the whole model ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_every_gradient_equal_those_of_one_process(several, one, form):
    reference = one["gradients"]["barlow_edu, matrix form"]
    assert max(g.abs().max() for g in reference["gradients"].values()) > 0.1
    for found in several:
        found = found["gradients"][f"barlow_edu, {form} form"]
        assert found["loss"] == pytest.approx(reference["loss"], abs=1e-6)
        for kind in ("gradients", "buffers"):
            assert found[kind].keys() == reference[kind].keys()
            for name, value in found[kind].items():
                torch.testing.assert_close(value, reference[kind][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimizer", STEPS)
def test_three_steps_end_where_one_process_ends(several, one, optimizer, form):
    reference = one["trained"][optimizer, "matrix"]
    start = exactness.small_model().state_dict()
    moved = max((reference[k] - start[k]).abs().max() for k in dict(start) if "weight" in k)
    assert moved > 1e-3
    for found in several:
        for name, value in found["trained"][optimizer, form].items():
            torch.testing.assert_close(value, reference[name], rtol=0, atol=1e-5, msg=name)


def test_the_usual_ways_differ_as_they_are_told_to(several, one):
    """The table of the README and of notebook 14: 1/W of the gradient, or another direction."""
    count = len(several)
    reference = one["gradients"]["barlow_edu, matrix form"]
    table = {
        way: exactness.compare(several[0]["gradients"][way], reference) for way in exactness.WAYS
    }
    for way, row in table.items():
        print(f"{count} processes, {way}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items()))
        ours = way.startswith("barlow_edu")
        assert (row["loss"] < 1e-12 and row["largest"] < 1e-12) == ours
    blind = table["all-reduce of C unseen by autograd"]
    assert blind["length"] == pytest.approx(1 / count) and blind["cosine"] == pytest.approx(1)
    for way in list(exactness.WAYS)[3:]:
        assert table[way]["cosine"] < 0.99


def test_a_batch_norm_of_each_share_is_warned_of_once_and_by_rank_0_alone(several, one):
    heard = dict(several[0]["heard"])
    [warning] = heard.pop("own")
    assert "be.synchronize_batch_norm(model, device)" in warning
    others = [lines for found in (one, *several[1:]) for lines in found["heard"].values()]
    assert not any([*others, *heard.values()])


def test_alone_all_ways_are_the_same(one):
    reference = one["gradients"]["barlow_edu, matrix form"]
    for way, found in one["gradients"].items():
        assert exactness.compare(found, reference)["largest"] < 1e-9, way


# --- the loss and its parts ---------------------------------------------------------------------

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-4, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_of_embeddings_in_every_precision(several, one, form, dtype):
    terms, grads = one["embeddings"]["matrix", dtype]
    close = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    for found in several:
        assert all(
            torch.equal(t, u)
            for t, u in zip(
                found["embeddings"][form, dtype][0],
                several[0]["embeddings"][form, dtype][0],
                strict=True,
            )
        )
        for t, expected in zip(found["embeddings"][form, dtype][0], terms, strict=True):
            torch.testing.assert_close(t, expected, **close)
    for view in (0, 1):
        whole = joined(several, lambda found, view=view: found["embeddings"][form, dtype][1][view])
        torch.testing.assert_close(whole, grads[view], **close)
    assert grads[0].abs().max() > 0.01
    constant = joined(several, lambda found: found["embeddings"][form, dtype][1][0])[:, 4]
    assert torch.equal(constant, torch.zeros_like(constant))


def test_correlation_and_standardisation_are_of_the_whole_batch(several, one):
    c, *shares = one["blocks"]
    for found in several:
        torch.testing.assert_close(found["blocks"][0], c, rtol=0, atol=1e-12)
    for i, expected in enumerate(shares, start=1):
        whole = joined(several, lambda found, i=i: found["blocks"][i])
        torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-9)


def test_the_published_scale_is_one_over_the_processes(several, one):
    loss, grads = one["published"]
    for view in (0, 1):
        whole = joined(several, lambda found, view=view: found["published"][1][view])
        torch.testing.assert_close(whole * len(several), grads[view])
    assert several[0]["published"][0] == pytest.approx(loss)


@pytest.mark.parametrize("world_size", [1, 3, 16])
def test_the_published_scale_leaves_the_loss_and_divides_the_gradient(world_size):
    z = [x.requires_grad_() for x in embeddings()]
    loss = barlow_twins_loss(*z, 0.1).loss
    scaled = distributed.published_scale(loss, world_size)
    assert torch.equal(scaled, loss)
    whole, part = (torch.autograd.grad(x, z, retain_graph=True) for x in (loss, scaled))
    for g, expected in zip(part, whole, strict=True):
        torch.testing.assert_close(g * world_size, expected)


def test_the_cheaper_form_counts_what_is_sent():
    assert [cheaper_form(256, 341), cheaper_form(256, 342)] == ["matrix", "gram"]  # 4 N < 3 D
    assert [cheaper_form(2048, 8192, 8), cheaper_form(8192, 1024, 8)] == ["gram", "matrix"]
    # Where sending is all that counts, the gram form sends 2 N D numbers and the matrix form 2 D².
    assert [cheaper_form(1000, 980, 64), cheaper_form(1000, 1020, 64)] == ["matrix", "gram"]


# --- batch norm ---------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_batch_norm_is_that_of_the_whole_batch(several, one, dtype, momentum):
    """Against torch's own batch norm in one process: outputs, gradients, running averages, evaluation."""
    close = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    close = {"rtol": close, "atol": close}
    for i, (out, grad, grads, buffers) in enumerate(one["norms"][dtype, momentum]):
        results = [found["norms"][dtype, momentum][i] for found in several]
        torch.testing.assert_close(torch.cat([r[0] for r in results]), out, **close)
        torch.testing.assert_close(torch.cat([r[1] for r in results]), grad, **close)
        for r in results:
            for got, expected in zip(r[2] + r[3], grads + buffers, strict=True):
                torch.testing.assert_close(got, expected, **close)


# --- what is said -------------------------------------------------------------------------------


def test_collectives_and_their_gradients(several):
    count = len(several)
    weight = count * (count + 1) / 2  # Σ (r + 1): every process's objective counts
    for rank, found in enumerate(several):
        reduced, rows, gathered, told = found["collectives"]
        assert reduced == [[2 * (1 + rank) * weight, 4 * weight]]
        assert rows == [[1.0 + r, 2.0] for r in range(count)]
        assert gathered == [[rank * weight] * 2]
        assert told[:3] == [3 * (count - 1), "from 0", "'missing'"]
        assert told[3:6] == [1, 0, True]
        assert "shard of equal shape, got (3, 4), (4, 4)" in told[6]


def test_a_process_on_its_own_needs_no_group():
    assert distributed.active_group() is None
    assert (distributed.rank(), world_size(), distributed.agree(7)) == (0, 1, 7)
    assert distributed.from_first(lambda: 5) == 5
    x = torch.ones(2)
    assert all_reduce(x) is x and all_gather(x) is x
    with distributed.process_group():
        assert not dist.is_initialized()


def test_half_an_environment_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ValueError, match="MASTER_ADDR, MASTER_PORT is not set. Start with torchrun"),
        distributed.process_group(),
    ):
        pass


def fail_in_one():
    if distributed.rank() == 1:
        raise ValueError("this one")
    return "fine"


def one_row_each():
    z_a, z_b = (x[:2][distributed.rank()].view(1, -1) for x in embeddings())
    return [barlow_twins_loss(z_a, z_b, 0.1, form).loss for form in FORMS]


def test_two_processes_may_hold_one_row_each():
    z_a, z_b = (x[:2] for x in embeddings())
    expected = [barlow_twins_loss(z_a, z_b, 0.1, form).loss for form in FORMS]
    for found in run_processes(one_row_each, 2):
        torch.testing.assert_close(found, expected)


def train_on_unequal_copies(out):
    with tiny_encoder():
        images = tiny_images().subset(slice(distributed.rank(), None))
        pretrain(CONFIG, out, images, progress=False)


def test_processes_with_different_images_are_refused(tmp_path):
    """The copy on one machine lacks a file: their orders would differ, and so would the number of steps."""
    with pytest.raises(RuntimeError, match="have different images .* 85 x 3 .* 84 x 3"):
        run_processes(train_on_unequal_copies, 2, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def vanish():
    import os

    os._exit(3)


def test_a_process_that_fails_is_named():
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="Process 1 terminated [^$]*ValueError: this one"):
        run_processes(fail_in_one, 2)
    with pytest.raises(RuntimeError, match="process 0 terminated with exit code 3"):
        run_processes(vanish, 1)
    assert threading.active_count() == before


def leave(out):
    """Process 1 goes before the training has begun; what the others say."""
    if distributed.rank() == 1:
        return None
    try:
        with tiny_encoder():
            pretrain(CONFIG, out, tiny_images(), progress=False)
    except distributed.PeerLost as error:
        return str(error)


def test_a_process_whose_peer_has_ended_says_so_in_one_sentence(tmp_path):
    """And not in gloo's words, gloo/transport/tcp/pair.cc:553."""
    words, _ = run_processes(leave, 2, tmp_path / "run")
    assert words.startswith("Process 0 cannot go on: another of the 2 processes has ended")
    assert words.endswith("start all of them again with --resume.") and "pair.cc" not in words


def test_other_errors_of_a_training_stay_what_they_are():
    for error in (RuntimeError("gloo/"), ValueError("gloo/")):  # of a process on its own
        with pytest.raises(type(error), match="^gloo/$"), distributed.process_group():
            raise error
