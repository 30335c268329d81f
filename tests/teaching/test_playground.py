"""The playground's numbers against torch, numpy and the package, on the same numbers."""

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import stories
import torch
from javascript import run
from torch import nn

import barlow_edu as be
from barlow_edu import cli
from barlow_edu.models import Projector
from barlow_edu.numerics import pixels
from barlow_edu.numerics.optim import build_optimizer
from barlow_edu.storage.garments import compose
from barlow_edu.storage.places import data_dir
from barlow_edu.teaching import playground
from barlow_edu.teaching.embed import asset

START = "matmul.startMatmul();"
FILL = "const fill = (t, x) => { t.data.set(x); return t; };"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def draw():
    generator = np.random.default_rng(3)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)


def flat(x):
    return np.asarray(x, dtype=float).ravel().tolist()


def images(train=40, test=10):
    return base64.b64encode(playground.images(train, test)).decode()


# ---- the products --------------------------------------------------------------------------------


@pytest.mark.parametrize("simd", [True, False])
@pytest.mark.parametrize(("m", "k", "n"), [(8, 5, 16), (7, 300, 13), (1, 1, 1), (12, 513, 4)])
def test_products_are_those_of_numpy(draw, m, k, n, simd):
    a, b, c = draw(m, k), draw(k, n), draw(m, n)
    code = """
      const t = (x, r, c) => fill(matmul.tensor(r, c), x), { m, k, n } = given;
      const start = () => { matmul.startMatmul(given.simd); };
      start();
      const [a, b, at, bt] = [t(given.a, m, k), t(given.b, k, n), t(given.at, k, m), t(given.bt, n, k)];
      return [[a, b, {}], [at, b, { left: true }], [a, bt, { right: true }], [at, bt, { left: true, right: true }],
        [a, b, { more: true }]].map(([x, y, how]) => {
        const c = t(given.c, m, n);
        matmul.multiply(x, y, c, how);
        return Array.from(c.data);
      });"""
    given = {"a": flat(a), "b": flat(b), "c": flat(c), "at": flat(a.T), "bt": flat(b.T)}
    products = run(FILL + code, given | {"m": m, "k": k, "n": n, "simd": simd})
    exact = a.astype(float) @ b.astype(float)
    for product, expected in zip(products, [exact] * 4 + [exact + c], strict=True):
        np.testing.assert_allclose(np.reshape(product, (m, n)), expected, rtol=1e-4, atol=1e-4)


def test_simd_is_what_runs():
    assert run("return [matmul.startMatmul(), matmul.startMatmul(false)];") == [
        "WebAssembly SIMD",
        "JavaScript",
    ]


# ---- the losses ----------------------------------------------------------------------------------

LOSS = """
  const { n, d } = given, z = [given.a, given.b].map((x) => fill(matmul.tensor(n, d), x));
  const g = z.map(() => matmul.tensor(n, d)), space = loss.lossSpace(n, d);
  const terms = loss[given.name](...z, ...g, space, given.dials);
  return { terms, g: g.map((x) => Array.from(x.data)), c: Array.from(space.c.data) };"""


def compare_loss(name, z_a, z_b, expected, **dials):
    """Loss and both gradients are those that autograd finds for ``expected(z_a, z_b)``."""
    z_a, z_b = (torch.tensor(z, requires_grad=True) for z in (z_a, z_b))
    loss = expected(z_a, z_b)
    loss.backward()
    given = {"name": name, "dials": dials, "n": len(z_a), "d": z_a.shape[1]}
    z = {"a": flat(z_a.detach()), "b": flat(z_b.detach())}
    seen = run(START + FILL + LOSS, given | z)
    assert seen["terms"]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for gradient, view in zip(seen["g"], (z_a, z_b), strict=True):
        np.testing.assert_allclose(np.reshape(gradient, view.shape), view.grad, **CLOSE)
    return seen


@pytest.mark.parametrize(("n", "d"), [(24, 6), (6, 24)])
def test_the_loss_of_barlow_twins(draw, n, d):
    z_a, z_b = draw(n, d), draw(n, d) + 2
    seen = compare_loss(
        "barlowTwinsLoss",
        z_a,
        z_b,
        lambda a, b: be.barlow_twins_loss(a, b, 0.3).loss,
        **{"lambd": 0.3},
    )
    terms = be.barlow_twins_loss(torch.tensor(z_a), torch.tensor(z_b), 0.3)
    assert seen["terms"]["invariance"] == pytest.approx(terms.invariance.item(), rel=1e-4)
    assert seen["terms"]["redundancy"] == pytest.approx(terms.redundancy.item(), rel=1e-4)
    c = be.cross_correlation(torch.tensor(z_a), torch.tensor(z_b))
    np.testing.assert_allclose(np.reshape(seen["c"], (d, d)), c, **CLOSE)


def test_a_term_that_is_off(draw):
    z = draw(24, 6), draw(24, 6)
    for off, of in (("push", "invariance"), ("pull", "redundancy")):
        factor = 0.3 if of == "redundancy" else 1
        compare_loss(
            "barlowTwinsLoss",
            *z,
            lambda a, b, of=of, factor=factor: factor * getattr(be.barlow_twins_loss(a, b), of),
            **{"lambd": 0.3, off: False},
        )


def test_the_losses_of_the_relatives(draw):
    z = draw(24, 6), 0.5 * draw(24, 6)
    compare_loss("vicregLoss", *z, lambda a, b: be.vicreg_loss(a, b).loss)
    compare_loss("simclrLoss", *z, be.simclr_loss)


def test_standardisation_and_its_gradient(draw):
    x, g = draw(10, 4) * 3 + 5, draw(10, 4)
    x[:, 2] = 7  # a column that does not vary
    code = """
      const [z, a, g] = [given.x, given.x, given.g].map((x) => fill(matmul.tensor(10, 4), x));
      loss.standardizeBackward(g, a, loss.standardize(z, a));
      return [Array.from(a.data), Array.from(g.data)];"""
    a, gradient = run(START + FILL + code, {"x": flat(x), "g": flat(g)})
    z = torch.tensor(x, requires_grad=True)
    expected = be.standardize(z)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(np.reshape(a, x.shape), expected.detach(), **CLOSE)
    np.testing.assert_allclose(np.reshape(gradient, x.shape), z.grad, **CLOSE)


def test_the_floor():
    shapes = [(16, 64, 0.1), (256, 64, 0.1), (8, 128, 3.0)]
    floors = run("return given.map((x) => loss.lossFloor(...x));", shapes)
    assert floors == pytest.approx([be.loss_floor(*shape) for shape in shapes])


# ---- a whole step --------------------------------------------------------------------------------


class Shifted(nn.Module):
    """A bias and ReLU: what stands in the place of a batch norm."""

    def __init__(self, columns):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(columns))

    def forward(self, x):
        return (x + self.bias.view(1, -1, *[1] * (x.ndim - 2))).relu()


def network(encoder, depth, width, norm, dim, size, hidden=128):
    """The playground's network in torch's own modules."""
    parts, columns = [], 3 if encoder == "conv" else 3 * size * size
    for block in range(depth):
        outputs = width * (2**block if encoder == "conv" else 8)
        conv = nn.Conv2d(columns, outputs, 3, stride=2, padding=1, bias=False)
        parts.append(conv if encoder == "conv" else nn.Linear(columns, outputs, bias=False))
        norms = nn.BatchNorm2d if encoder == "conv" else nn.BatchNorm1d
        parts += [norms(outputs), nn.ReLU()] if norm else [Shifted(outputs)]
        columns = outputs
    if encoder == "conv":
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = list(Projector(columns, dim, hidden, layers=2, last_norm=False))
    if not norm:
        head[1:3] = [Shifted(hidden)]
    return nn.Sequential(*parts, *head)


def as_rows(parameter):
    """A weight of torch as the playground has it: (inputs, outputs), a patch's pixels before its channels."""
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[parameter.ndim]
    return flat(parameter.detach().permute(order))


STEP = """
  const settings = { ...given.settings, lambda: 0.2, rate: 0.01 };
  const data = await images.unpackImages(given.images);
  const it = new trainer.Trainer(data, settings, 20);
  const weights = it.network.weights, all = (key) => weights.map((w) => Array.from(w[key].data));
  given.weights.forEach((x, i) => weights[i].value.data.set(x));
  it.drawTwins();
  const input = Array.from(it.space.values[0].data), terms = it.useTwins();
  return { input, terms, grads: all("grad"), after: all("value") };"""


@pytest.mark.parametrize(
    ("encoder", "depth", "width", "norm"),
    [("conv", 3, 4, True), ("conv", 2, 8, False), ("mlp", 2, 2, True), ("mlp", 1, 1, False)],
)
def test_a_whole_step_is_that_of_torch(encoder, depth, width, norm):
    torch.manual_seed(1)
    dim, batch, size = 8, 16, playground.SIZE
    settings = {"encoder": encoder, "depth": depth, "width": width, "norm": norm, "dim": dim}
    model = network(encoder, depth, width, norm, dim, size).train()
    weights = [as_rows(p) for p in model.parameters()]
    given = {"settings": settings | {"batch": batch}, "weights": weights, "images": images()}
    seen = run(START + STEP, given)
    views = torch.tensor(seen["input"]).view(2, batch, size, size, 3).permute(0, 1, 4, 2, 3)
    z = [model(x if encoder == "conv" else x.permute(0, 2, 3, 1).flatten(1)) for x in views]
    loss = be.barlow_twins_loss(*z, 0.2).loss
    optimizer = build_optimizer("adamw", model, 0.01, weight_decay=1e-4)
    loss.backward()
    assert seen["terms"]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    gradients = [as_rows(p.grad) for p in model.parameters()]
    for ours, theirs in zip(seen["grads"], gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max() + 1e-7)
    optimizer.step()
    for ours, p, g in zip(seen["after"], model.parameters(), gradients, strict=True):
        # AdamW's first step is the gradient's sign: where that is rounding, nothing can be compared.
        clear = np.abs(g) > 1e-3 * np.abs(g).max()
        np.testing.assert_allclose(np.array(ours)[clear], np.array(as_rows(p))[clear], atol=1e-5)


def test_the_same_seed_gives_the_same_run_in_a_memory_that_does_not_grow():
    code = """
      const data = await images.unpackImages(given), runs = [0, 0, 1].map((seed) => {
        const it = new trainer.Trainer(data, { seed, batch: 8, width: 4 }, 20), used = matmul.used();
        const losses = Array.from({ length: 5 }, () => it.train().loss);
        it.judge(4);
        return { losses, flat: used === matmul.used(), knn: it.judge(4).accuracy };
      });
      return runs;"""
    first, again, other = run(START + code, images())
    assert first == again
    assert first["flat"]
    assert first["losses"] != other["losses"]


def test_dials_turn_while_it_trains():
    code = """
      const data = await images.unpackImages(given), afresh = {};
      const it = new trainer.Trainer(data, { batch: 8, width: 4 }, 20);
      for (const change of [{ lambda: 1 }, { batch: 16 }, { crop: 1 }, { flip: false }, { colour: 0 }, { grey: 0 },
        { method: "simclr" }, { method: "vicreg" }, { push: false }, { rate: 0.1 }, { dim: 8 }, { norm: false },
        { encoder: "mlp" }, { depth: 1 }]) {
        it.train();
        it.train();
        const before = it.step;
        afresh[Object.keys(change).join()] = it.set(change);
        if (it.step !== (afresh[Object.keys(change).join()] ? 0 : before)) return "steps are lost";
        if (!Number.isFinite(it.train().loss)) return `no loss after ${JSON.stringify(change)}`;
      }
      return afresh;"""
    afresh = run(START + code, images())
    assert [key for key, value in afresh.items() if value] == ["dim", "norm", "encoder", "depth"]


# ---- views and pictures --------------------------------------------------------------------------


def test_the_pictures_are_those_of_the_package():
    code = """
      const { train, test } = await images.unpackImages(given);
      return [train, test].map((part) => Array.from(part.pixels));"""
    seen = [
        np.reshape(x, (-1, playground.SIZE, playground.SIZE, 3)) for x in run(code, images(30, 5))
    ]
    with np.load(data_dir() / "garments.npz") as stored:
        photos = np.concatenate([stored["train_images"][:30], stored["test_images"][:5]])
    cards, _ = compose(photos, np.random.RandomState(playground.SEED), playground.SIZE)
    np.testing.assert_array_equal(np.concatenate(seen), cards.transpose(0, 2, 3, 1))


def test_views_are_those_of_the_package():
    size, n = playground.SIZE, 24
    code = """
      const data = await images.unpackImages(given.images), generator = new random.Random(5), seen = [];
      for (let i = 0; i < given.n; i += 1) {
        const drawn = views.drawView(generator, { crop: 0.2, flip: 0.5, colour: 1, grey: 0.3 }, data.size);
        const out = new Float32Array(3 * data.size ** 2);
        views.makeView(data.train.pixels.subarray(i * out.length, (i + 1) * out.length), drawn, data.size, out);
        seen.push({ ...drawn, order: Array.from(drawn.order), out: Array.from(out) });
      }
      return [seen, Array.from(data.train.pixels)];"""
    seen, bytes_ = run(code, {"images": images(), "n": n})
    whole = torch.tensor(bytes_, dtype=torch.uint8).view(-1, size, size, 3).permute(0, 3, 1, 2)[:n]
    box = torch.tensor([[v["top"], v["left"], v["height"], v["width"]] for v in seen])
    x = pixels.crop(whole, box, torch.tensor([v["flip"] for v in seen]), size, "bilinear")
    adjust = "brightness", "contrast", "saturation", "hue"
    for image, view in zip(x.split(1), seen, strict=True):
        for which in view["order"] if view["jitter"] else ():
            factor = torch.tensor([view["factors"][which]])
            getattr(pixels, f"adjust_{adjust[which]}")(image, factor)
        if view["grey"]:
            image.copy_(pixels.grey(image).expand_as(image))
        ours = np.reshape(view["out"], (size, size, 3))
        np.testing.assert_allclose(ours, image[0].permute(1, 2, 0), atol=2e-5)
    kinds = {(v["flip"], v["grey"], v["jitter"]) for v in seen}
    assert len(kinds) > 3 and box[:, 2].min() < size


# ---- what it knows -------------------------------------------------------------------------------


def test_neighbours_ranks_and_spectra(draw):
    bank, queries = draw(60, 5), draw(12, 5)
    labels = np.arange(72) % 4
    code = """
      const { n, d } = given, all = evaluate.unitRows(given.x, n + 12, d), cosine = new Float32Array(12 * n);
      for (let i = 0; i < 12; i += 1) for (let j = 0; j < n; j += 1)
        for (let k = 0; k < d; k += 1) cosine[i * n + j] += all[(n + i) * d + k] * all[j * d + k];
      const spread = evaluate.scatter(given.x, n, d).out;
      return { near: evaluate.nearest(cosine.subarray(0, n), 5),
        rank: evaluate.effectiveRank(evaluate.eigenvalues(spread, d)),
        knn: evaluate.knnAccuracy(cosine, n, given.labels.slice(0, n), given.labels.slice(n), 7),
        singular: Array.from(evaluate.singularValues(given.square, 9)),
        flat: Array.from(evaluate.eigenvalues(new Float64Array(9), 3)) };"""
    square = draw(9, 9)
    given = {"x": flat(np.vstack([bank, queries])), "n": 60, "d": 5, "labels": labels.tolist()}
    seen = run(code, given | {"square": flat(square)})
    bank, queries = torch.tensor(bank), torch.tensor(queries)
    assert seen["near"] == be.nearest(bank, queries[:1], 5)[1][0].tolist()
    assert seen["rank"] == pytest.approx(be.effective_rank(bank), rel=1e-4)
    split = torch.tensor(labels[:60]), torch.tensor(labels[60:])
    assert seen["knn"] == pytest.approx(be.knn_accuracy(bank, split[0], queries, split[1], 7))
    np.testing.assert_allclose(seen["singular"], np.linalg.svd(square)[1], rtol=1e-5, atol=1e-6)
    assert seen["flat"] == pytest.approx([0, 0, 0])


# ---- the stories ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_story_keeps_its_promise(seed):
    assert all(0 <= story["answer"] < 3 for story in stories.stories())
    told = stories.outcome(seed)
    works = told["works"]
    assert works["distance"] < 0.6 * works["first"]
    assert works["accuracy"] > works["begin"] + 0.1
    assert told["collapse"]["rankZ"] < 2 and works["rankZ"] > 10
    assert told["colour"]["distance"] < works["distance"]  # C is nearer to I,
    assert told["colour"]["accuracy"] < works["accuracy"] - 0.15  # and nothing is known of garments
    few = told["samples"]
    assert few["least"] > few["floor"] > 1
    assert max(few["singular"][15:]) < 1e-3
    assert told["strong"]["diagonal"] < works["diagonal"] - 0.2
    assert told["crop"]["distance"] < works["distance"]
    assert told["crop"]["accuracy"] < works["accuracy"] - 0.01


# ---- page, words and address ---------------------------------------------------------------------


def test_an_address_holds_the_settings():
    code = """
      const there = settings.writeAddress({ ...settings.DEFAULTS, ...given }, { lang: "en" });
      const wild = "#lambda=99&dim=33&norm=perhaps&encoder=cnn&rate=&other=1";
      return [there, settings.readAddress(there), settings.readAddress(wild).settings, settings.DEFAULTS,
        settings.writeAddress(settings.DEFAULTS, {})];"""
    changed = {"lambda": 0, "norm": False, "method": "simclr", "dim": 64}
    there, back, wild, defaults, plain = run(code, changed, "page")
    assert back == {"settings": defaults | changed, "other": {"lang": "en"}}
    assert "rate" not in there and plain == "#"
    assert wild == defaults | {"lambda": 10, "dim": 32}


def test_every_word_has_its_place():
    """Languages have the words of English, and code asks for no word that is not there."""
    folder = Path(playground.__file__).parent
    words = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("words/*.json")}
    stories = re.findall(r'key: "(\w+)"', asset("playground/stories.js"))
    for language in words.values():
        assert list(language) == list(words["en"])
        assert all(list(language[key]) == list(words["en"][key]) for key in stories)
        assert all(len(language[key]["choices"]) == 3 for key in stories)
        assert len(language["kinds"]) == 10
    text = asset("playground/page.js") + asset("playground/page.html")
    asked = set(re.findall(r'data-(?:word|label|tip)="(\w+)"|\bw\.(\w+)|say\("(\w+)"', text))
    asked = {name for names in asked for name in names if name}
    assert asked - set(words["en"]) == set()
    dials = run("return settings.DIALS;", module="page")
    names = {f"dial_{key}" for key in dials} | {
        f"{k}_{v}" for k in ("method", "encoder") for v in dials[k]
    }
    assert names <= set(words["en"])


def test_the_page_needs_nothing_else_and_is_small(tmp_path):
    page = playground.write(tmp_path / "p.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="|@import|https?://(?!www\.w3\.org)', page)
    assert len(page) < 1_300_000


def test_the_page_in_the_repository_is_up_to_date():
    """``barlow-edu playground --no-open`` in the root writes it; pictures may be packed otherwise."""
    path = Path(__file__).parents[2] / playground.NAME
    packed = re.compile(r'"images": "([^"]+)"')
    there, now = path.read_text(encoding="utf-8"), playground.page()
    pictures = [zlib.decompress(base64.b64decode(packed.search(x)[1])) for x in (there, now)]
    assert pictures[0] == pictures[1]
    assert packed.sub("", there) == packed.sub("", now)


def test_a_notebook_stores_the_frame_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = be.playground(story="collapse", dim=8)._repr_html_()
    assert Path("playground.html").stat().st_size > 1e6 and len(shown) < 500
    assert shown.count("playground.html#story=collapse&amp;dim=8") == 2
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00.html").write_text(shown)
    playground.write_beside(tmp_path)  # as the site does
    assert (tmp_path / "notebooks" / "00.html").read_text().count('="../playground.html#') == 2


def test_the_command_writes_the_page_and_opens_it(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    path = tmp_path / "here.html"
    assert not cli.main(["playground", "--out", str(path)])
    assert opened == [path.as_uri()] and "opened" in capsys.readouterr().out
    assert not cli.main(["playground", "--out", str(path), "--no-open"])
    assert len(opened) == 1 and path.read_text(encoding="utf-8").startswith("<!doctype html>")
