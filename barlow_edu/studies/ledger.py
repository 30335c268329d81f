"""The ledger of notebook 12: what is claimed, and what recorded trainings say about it.

A claim is put as predictions: this variant will be above that one. A prediction is compared with the record, seed by
seed, and the verdict follows from the rules below. Nothing is decided by hand.

The difference of two variants is taken for each seed (both started from the same encoder and saw the same images in
the same order), and of the mean difference there is a 95 % interval. Three differences tell little about their
spread, so it is pooled over all variants of an experiment: what is left of the table (variants, seeds) when the mean
of each variant and of each seed is taken off (a randomised block design; with two variants, the paired t-test). Two
variants are

    alike       if the interval lies within ± the margin: too little to care about here. The margin is three points of
                accuracy, 0.03 of the mean of C's diagonal, one direction of effective rank;
    above       if not, and the interval lies above 0;
    below       if not, and it lies below 0;
    undecided   otherwise: more seeds would be needed.

A prediction holds, fails, or is open where the two are undecided. A claim "holds" if all its predictions hold, "does
not hold" if some fail and none holds, "holds in part" if some hold and some fail, and is "undecided" otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from barlow_edu.storage.files import read_json
from barlow_edu.studies.ablations import load_experiment
from barlow_edu.studies.study import Study, mean_interval

# Columns of the record: name, margin, and how a difference is written.
KEYS: dict[str, tuple[str, float, str]] = {
    "knn": ("kNN", 0.03, "points"),
    "linear": ("linear probe", 0.03, "points"),
    "diagonal_mean": ("mean of the diagonal", 0.03, ""),
    "effective_rank_z": ("effective rank of z", 1.0, ""),
    "effective_rank_h": ("effective rank of h", 1.0, ""),
}
Source = Callable[[str], Study]  # name of an experiment -> its record
FITTING = {
    "above": {"above"},
    "below": {"below"},
    "like": {"alike"},
    "not above": {"alike", "below"},
}


class Effect(NamedTuple):
    """Mean difference over the seeds in one column of the record, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    key: str = "knn"

    @property
    def word(self) -> str:
        """ "alike", "above", "below" or "undecided", see the module's text."""
        margin = KEYS[self.key][1]
        if -margin < self.low and self.high < margin:
            return "alike"
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        if KEYS[self.key][2] == "points":
            return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


class Prediction(NamedTuple):
    """``variant`` of a recorded experiment is "above", "below", "like" or "not above" ``other``.

    other: a variant, or the name of a baseline ("untrained", "pixels"). key: the column of the record.
    """

    experiment: str
    variant: str
    relation: str
    other: str
    key: str = "knn"


class Claim(NamedTuple):
    """What is claimed, who says so, what the paper measured, and the predictions that follow."""

    text: str
    who: str
    paper: str
    predictions: Sequence[Prediction]


class Entry(NamedTuple):
    """A claim with the effect of each prediction (None where nothing is recorded) and the verdict."""

    claim: Claim
    effects: list[Effect | None]
    outcomes: list[str]
    verdict: str


def effect(
    values: Sequence[float],
    others: Sequence[float] | float = 0.0,
    key: str = "knn",
    table: np.ndarray | None = None,
) -> Effect:
    """Mean of ``values`` − ``others``, (seeds,) each or one number, with its 95 % interval (Student's t).

    key: what the values are. table: all variants of the experiment, (variants, seeds), to pool the spread over;
    default, these two. Raises ValueError if there are fewer than two seeds: one has no spread.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(others, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"An interval needs two seeds or more, got {x.tolist()}.")
    return Effect(*mean_interval(x, y, table), key)


def outcome(prediction: Prediction, effect: Effect | None) -> str:
    """ "holds", "fails", "open", or "not recorded"."""
    if prediction.relation not in FITTING:
        known = ", ".join(FITTING)
        raise ValueError(f"A relation is one of {known}, got {prediction.relation!r}.")
    if effect is None:
        return "not recorded"
    if effect.word == "undecided":
        return "open"
    return "holds" if effect.word in FITTING[prediction.relation] else "fails"


def verdict(outcomes: Sequence[str]) -> str:
    """The verdict on a claim from the outcomes of its predictions."""
    if "not recorded" in outcomes:
        return "not recorded"
    holds, fails = outcomes.count("holds"), outcomes.count("fails")
    if holds == len(outcomes):
        return "holds"
    if fails:
        return "holds in part" if holds else "does not hold"
    return "undecided"


def record_of(name: str) -> Study:
    """The record behind a prediction: an experiment of "ablations", or the comparison of "relatives"."""
    return load_experiment(_folder(name))


def measure(prediction: Prediction, source: Source = record_of) -> Effect | None:
    """What the record says about one prediction; None where there is no record, or not of both for all seeds."""
    variant, other, key = prediction.variant, prediction.other, prediction.key
    try:
        record = source(prediction.experiment)
        seeds = {name: tuple(record.column(name, "seed")) for name in record.groups}
        baseline = record.baselines.get(other)
        if len(seeds[variant]) < 2 or baseline is None and seeds[variant] != seeds[other]:
            return None
        values = record.column(variant, key)
    except (FileNotFoundError, KeyError):
        return None
    table = [record.column(name, key) for name in seeds if seeds[name] == seeds[variant]]
    others = record.column(other, key) if baseline is None else baseline
    return effect(values, others, key, np.stack(table))


def judge(claim: Claim, source: Source = record_of) -> Entry:
    """The ledger's row of one claim."""
    effects = [measure(p, source) for p in claim.predictions]
    outcomes = [outcome(p, e) for p, e in zip(claim.predictions, effects, strict=True)]
    return Entry(claim, effects, outcomes, verdict(outcomes))


def ledger(source: Source = record_of) -> list[Entry]:
    """All claims of ``claims.json``, judged by the record."""
    return [judge(claim, source) for claim in claims()]


def claims() -> list[Claim]:
    """The claims that come with the package."""
    listed = read_json(Path(__file__).with_name("claims.json"))
    return [
        Claim(c["claim"], c["who"], c["paper"], [Prediction(*p) for p in c["predictions"]])
        for c in listed
    ]


def ledger_table(entries: Sequence[Entry], runs: str = "../data/runs") -> str:
    """The ledger as a Markdown table; ``runs`` is where the links to the records lead."""
    rows = ["| # | claim | who says so | the paper | our runs: difference [95 %] | verdict here |"]
    rows.append("|---|---|---|---|---|---|")
    for i, e in enumerate(entries, 1):
        lines = [_line(p, x) for p, x in zip(e.claim.predictions, e.effects, strict=True)]
        folders = dict.fromkeys(p.experiment for p in e.claim.predictions)
        links = ", ".join(f"[{f}]({runs}/{_folder(f)})" for f in folders)
        cells = (e.claim.text, e.claim.who, e.claim.paper)
        measured = "<br>".join([*lines, f"runs: {links}"])
        rows.append(f"| {i} | {' | '.join(cells)} | {measured} | **{e.verdict}** |")
    return "\n".join(rows)


def _line(prediction: Prediction, effect: Effect | None) -> str:
    name, _, unit = KEYS[prediction.key]
    difference = f"{effect} {unit}".strip() if effect else "not recorded"
    return f"{prediction.variant} − {prediction.other}, {name}: {difference}"


def _folder(name: str) -> str:
    return name if name == "relatives" else f"ablations/{name}"
