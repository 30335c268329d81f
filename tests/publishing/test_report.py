"""The report of a run, one page by itself, and its export; ``browser/test_site_pages.py`` looks at the page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from tiny import CONFIG, write_tree
from torch import nn
from torchvision.models import resnet18

import barlow_edu as be
from barlow_edu import cli
from barlow_edu.publishing.report import export, write_report
from barlow_edu.runs import record
from barlow_edu.scale.official import load_official
from barlow_edu.storage.files import read_json, write_json

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a ResNet-18 with hostile words in its files."""
    root = write_tree(tmp_path_factory.mktemp("images"))
    settings = {**CONFIG, "encoder": "resnet18", "data": "folder", "root": str(root), "epochs": 1}
    run = be.pretrain(settings, tmp_path_factory.mktemp("runs") / "a<b>", progress=False)
    be.evaluate(run, linear=False, save=True)
    about = run.path / "environment.json"
    write_json(about, read_json(about) | {"note": "<script>alert(1)</script> `x` [y](z)"})
    return be.load_run(run.path)


class Page(HTMLParser):
    """The headings, images, scripts and links of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_report_is_one_page_with_everything_in_it(run, tmp_path):
    text = write_report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    heads = re.findall(r"<h2[^>]*>(.*?)(?:<a|</h2>)", text)
    assert heads == ["Training", "The film of C", "Evaluation", "Spectrum of the features",
                     "Neighbours", "Where it ran", "Configuration"]  # fmt: skip
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 4 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert all(image["alt"] for image in page.all("img"))
    assert not page.all("link") and not [s for s in page.all("script") if "src" in s]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "batch_size" in page.words and run.environment["commit"] in page.words
    assert "with the cifar stem" in page.words and run.config["root"] not in text


def test_what_a_run_says_of_itself_does_nothing(run, tmp_path):
    text = write_report(run, tmp_path / "page.html", images=False).read_text(encoding="utf-8")
    assert "alert(1)" in text and "<script>alert" not in text and "a<b>" not in text
    page = Page(text)
    assert "<script>alert(1)</script> `x` [y](z)" in page.words and "a<b>" in page.words
    assert not [a for a in page.all("a") if a.get("href") == "z"]
    assert "Neighbours" not in page.words


def test_a_report_says_why_there_are_no_images(run, tmp_path, monkeypatch):
    for where in (run.config, run.environment):
        monkeypatch.setitem(where, "root", str(tmp_path / "gone"))
    text = write_report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "could not be read: " in text and "gone" in text and "Configuration" in text


def test_the_commands_write_a_report_and_an_export(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(run.path), "--no-images"]) == 0
    assert (tmp_path / "report_a<b>.html").stat().st_size > 10_000
    assert cli.main(["export", str(run.path)]) == 0
    assert "encoder_projector.pth" in capsys.readouterr().out
    assert cli.main(["export", "nowhere"]) == 2
    assert "No run at 'nowhere'" in capsys.readouterr().err


def test_an_export_is_read_by_torchvision_and_by_the_loader(run):
    encoder, both, _ = export(run)
    model, x = run.load_model(), torch.rand(2, 3, 32, 32)
    plain = torch.load(encoder, weights_only=True)
    net = resnet18()
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    assert net.load_state_dict(plain, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    net.fc = nn.Identity()
    torch.testing.assert_close(net.eval()(x), model.encode(x))
    assert torch.equal(load_official(encoder)(x), model.encode(x))
    assert torch.equal(load_official(both).embed(x), model.embed(x))
    names = {name.split(".")[1] for name in torch.load(both, weights_only=True)["model"]}
    assert names == {"backbone", "projector", "bn"}


def test_the_model_card_has_what_a_hub_reads_and_what_people_need(run):
    card = export(run)[-1].read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "barlow_edu"
    assert "## Evaluation" in text and "## Configuration" in text and "data:image" not in text
    assert "16 pixels a side" in text and "<script>" not in text and run.config["root"] not in card
    assert be.load_run(run.path).load_model() is not None  # it is still a run


def test_a_record_leaves_exported_weights_behind(run, tmp_path, monkeypatch):
    export(run)
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    assert not list(record(run, "kept").path.glob("*.pth"))


def test_the_hub_hands_out_the_encoder_of_a_recorded_run():
    encoder = torch.hub.load(str(ROOT), "encoder", "garments_quick", source="local")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(encoder(x), be.load_run("garments_quick").load_model().encode(x))
