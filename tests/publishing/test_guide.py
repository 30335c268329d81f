"""The instructor guide, the formula sheet and the exam: what they name exists, and what they compute is right."""

import importlib
import importlib.util
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mutual_info_score

import barlow_edu as be
from barlow_edu.cli import main
from barlow_edu.config import load_config
from barlow_edu.publishing import copies as builds

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
GUIDE, SHEET, ANSWERS = (
    (NOTEBOOKS / name).read_text(encoding="utf-8")
    for name in ("INSTRUCTOR_GUIDE.md", "FORMULA_SHEET.md", "EXAM_ANSWERS.md")
)


def exists(name):
    """Whether a dotted name of the package can be reached by importing and by getting attributes."""
    thing = be
    for i, part in enumerate(name.split(".")[1:], start=2):
        if not hasattr(thing, part):
            try:
                importlib.import_module(".".join(name.split(".")[:i]))
            except ImportError:
                return False
        thing = getattr(thing, part)
    return True


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(barlow_edu(?:\.\w+)+)`", SHEET + GUIDE)))
)
def test_names_of_the_package_exist(name):
    assert exists(name), name


def test_a_name_that_does_not_exist_is_seen():
    assert not exists("barlow_edu.nowhere") and not exists("barlow_edu.loss.nowhere")


def test_settings_and_attributes_of_the_sheet_exist():
    config = load_config("garments_quick")
    for key in re.findall(r"configuration: `(\w+)`", SHEET):
        assert key in config
    for owner, kind, name in re.findall(r"`barlow_edu\.(\w+)` (field|attribute) `(\w+)`", SHEET):
        owner = getattr(be, owner)
        assert name in owner._fields if kind == "field" else hasattr(owner, name)


def test_every_symbol_has_a_row():
    rows = "\n".join(line.split("|")[1] for line in SHEET.splitlines() if line.startswith("| $"))
    for symbol in (
        "X",
        "Y^A",
        "f_\\theta",
        "h",
        "Z^A",
        "A, B",
        "N",
        "D",
        "C",
        "\\lambda",
        "\\mathcal L",
        "$G$",
        "AA^\\top",
        "K",
        "s_k",
        "\\Gamma",
        "\\tau",
        "\\eta",
        "\\beta",
    ):
        assert symbol in rows, symbol


def exercises():
    """Numbers of the exercises that there are."""
    books = (nbformat.read(p, as_version=4) for p in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))
    cells = (c for b in books for c in b.cells if "exercise" in c.metadata.get("tags", []))
    return {c.metadata["barlow_edu"]["exercise"] for c in cells}


def test_the_timetables_name_exercises_and_notebooks_that_there_are():
    tracks = GUIDE[GUIDE.index("## Track 1") : GUIDE.index("## What students")]
    times = re.sub(r"\b\d+:\d\d\b|^\| \d\.\d ", "", tracks, flags=re.MULTILINE)
    named = set(re.findall(r"\b\d{1,2}\.\d\b", times))
    assert named and named <= exercises()
    links = set(re.findall(r"\]\((\w+\.(?:ipynb|md))\)", GUIDE))
    assert len(links) > 10 and all((NOTEBOOKS / link).is_file() for link in links)


def test_the_three_weeks_have_every_exercise_once():
    weeks = GUIDE[GUIDE.index("## Track 3") : GUIDE.index("A fourth week")]
    rows = re.sub(r"^\| \d\.\d ", "", weeks, flags=re.MULTILINE)
    named = re.findall(r"\b\d{1,2}\.\d\b", rows)
    assert sorted(named) == sorted(exercises())


def test_minutes_of_the_guide_and_of_the_notebooks_are_those_of_the_walk():
    """Words, figures and exercises, as benchmarks/walk.py counts them; a little may have been rewritten."""
    path = Path(__file__).parents[2] / "benchmarks" / "walk.py"
    spec = importlib.util.spec_from_file_location("walk", path)
    walk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walk)
    rows = re.findall(r"^\| \[\d\d .*\]\((\w+\.ipynb)\) \| (\d+) \| (\d+) \|", GUIDE, re.MULTILINE)
    assert len(rows) == len(list(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))
    for name, alone, solve in rows:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        found = walk.reading(notebook.cells)
        minutes = found["read"] + found["look"] + found["solve"]
        assert int(solve) == found["solve"], name
        [told] = re.findall(
            r"about (\d+) minutes to", "\n".join(c.source for c in notebook.cells[:2])
        )
        assert abs(minutes - int(alone)) < 10 and abs(minutes - int(told)) < 10, (name, minutes)


def test_every_question_has_an_answer():
    questions = re.findall(
        r"^(\d+)\. ", GUIDE[GUIDE.index("## Thirteen exam questions") :], re.MULTILINE
    )
    assert (
        questions
        == re.findall(r"^(\d+)\. ", ANSWERS, re.MULTILINE)
        == [str(i) for i in range(1, 14)]
    )


def answer(number):
    return re.search(rf"^{number}\. (.*?)(?=^\d+\. |\Z)", ANSWERS, re.MULTILINE | re.DOTALL)[1]


def test_the_numbers_of_the_answers_are_computed_by_the_package():
    z_a = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]]).T
    z_b = torch.tensor([[2.0, 2, -2, -2], [0, -2, 2, 0]]).T
    terms = be.barlow_twins_loss(z_a, z_b, lambd=0.1)
    expected = torch.tensor([[1, -(2**-0.5)], [0, 2**-0.5]])
    assert torch.allclose(be.cross_correlation(z_a, z_b), expected, atol=1e-6)
    for value in (terms.invariance, terms.loss):
        assert f"{float(value):.4f}" in answer(1)
    assert float(terms.redundancy) == pytest.approx(0.5, abs=1e-6)

    c = torch.tensor([[0.6, 0.1], [0.1, 0.6]], requires_grad=True)
    off = c.square().sum() - c.diagonal().square().sum()
    ((1 - c.diagonal()).square().sum() + 0.005 * off).backward()
    on, off = c.grad[0, 0].abs().item(), c.grad[0, 1].abs().item()
    assert f"{8192 * on:.0f}" in answer(3) and f"{8192 * 8191 * off:.0f}" in answer(3)

    assert f"{be.loss_floor(64, 256, 0.01):.2f}" in answer(4)

    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(101, 200, generator=generator) for _ in range(2)]
    redundancy = float(be.barlow_twins_loss(*noise, lambd=0.1).redundancy)
    assert "398" in answer(5) and redundancy == pytest.approx(398, rel=0.05)

    z = torch.randn(8, 3, generator=generator)
    mixed = (z - z.mean(0)) / z.std(0)
    assert (mixed.T @ mixed / 8).diagonal().tolist() == pytest.approx([0.875] * 3, abs=1e-5)
    assert "0.875" in answer(7)

    apart = np.subtract([36.1, 35.0, 37.2], [33.9, 35.6, 34.1])
    interval = stats.t.interval(0.95, 2, apart.mean(), stats.sem(apart))
    assert "[{:.2f}, {:.2f}]".format(*interval) in answer(11)

    z = be.standardize(torch.randn(10, 4, generator=generator, dtype=torch.float64))
    ours, vicreg = be.barlow_twins_loss(z, z, lambd=1), be.vicreg_loss(z, z)
    assert (float(ours.invariance), float(vicreg.variance)) == pytest.approx((0, 0))
    assert float(vicreg.covariance) / 2 == pytest.approx((10 / 9) ** 2 / 4 * float(ours.redundancy))

    x = np.array([-1, 0, 1])
    shared = mutual_info_score(x, x**2) / np.log(2)
    assert np.corrcoef(x, x**2)[0, 1] == 0 and f"share {shared:.3f} bits" in answer(13)


def test_answers_reach_neither_students_nor_copies(tmp_path, capsys):
    for arguments in (
        ["student", "--out", str(tmp_path / "s"), "--zip"],
        ["copy", str(tmp_path / "c")],
    ):
        assert main(["course", *arguments]) == 0
    assert main(["course", "instructor", "--out", str(tmp_path / "i")]) == 0
    for name in builds.INSTRUCTORS_ONLY:
        assert (tmp_path / "i" / name).is_file()
        assert not list((tmp_path / "s").rglob(name)) and not list((tmp_path / "c").rglob(name))
    secret = "0.1358"  # the answer to question 1
    assert secret in ANSWERS
    texts = [p for f in "sc" for p in (tmp_path / f).rglob("*") if p.suffix in (".md", ".ipynb")]
    assert texts and not [p for p in texts if secret in p.read_text(encoding="utf-8")]
    assert (tmp_path / "s" / "FORMULA_SHEET.md").is_file()
    assert not (tmp_path / "s" / "INSTRUCTOR_GUIDE.md").exists()
