"""The ledger of notebook 12: what is claimed, and what recorded trainings say about it.

A claim is put as predictions: this variant will be above that one. A prediction is compared with the record, seed by
seed, and the verdict follows from the rules below; their numbers are in ``claims.json``. Nothing is decided by hand.

The difference of two variants is taken for each seed (both started from the same encoder and saw the same images in
the same order), and of the mean difference there is a 95 % interval, see ``effect``. "untrained" is the variant's own
network before its training, with one value a seed. Two variants are

    alike       if the interval lies within ± the margin: too little to care about here;
    above       if not, and the interval lies above 0;
    below       if not, and it lies below 0;
    undecided   otherwise: more seeds would be needed.

A prediction holds, fails, or is open where the two are undecided. A claim "holds" if all its predictions hold, "does
not hold" if some fail and none holds, "holds in part" if some hold and some fail, and is "undecided" otherwise. This
is the raw verdict. The corrected one follows in the same way after Holm's correction: with a chance of 95 % not one
word of the whole ledger is there by chance.

Before either counts, the record has to show that it can judge at all. It cannot bear on a claim (``obstacles``) if it
has too few seeds, an interval that is no narrower than the margin or the effect that the claim is about, arms of
unequal budgets, a setting that does not beat raw pixels, or a positive control that is not seen: an effect known from
the literature that should be there, at least as large as the one that the claim is about.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from barlow_edu.storage.files import read_json
from barlow_edu.studies.ablations import load_experiment
from barlow_edu.studies.measure import UNTRAINED
from barlow_edu.studies.study import Study

DECLARED = read_json(Path(__file__).with_name("claims.json"))
RULES = DECLARED["rules"]
# Columns of the record: name, and how a difference is written.
KEYS: dict[str, tuple[str, str]] = {
    "knn": ("kNN", "points"),
    "linear": ("linear probe", "points"),
    "diagonal_mean": ("mean of the diagonal", ""),
    "effective_rank_z": ("effective rank of z", ""),
    "effective_rank_h": ("effective rank of h", ""),
}
Source = Callable[[str], Study]  # name of an experiment -> its record
FITTING = {
    "above": {"above"},
    "below": {"below"},
    "like": {"alike"},
    "not above": {"alike", "below"},
}


class Effect(NamedTuple):
    """Mean difference over the seeds in one column of the record, its standard error, and what the error is worth."""

    mean: float
    error: float
    freedom: float
    key: str = "knn"

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval (Student's t)."""
        return float(student.ppf(0.975, self.freedom)) * self.error

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self.half_width

    @property
    def margin(self) -> float:
        """The largest difference in this column that does not matter here."""
        return RULES["margins"][self.key]

    @property
    def word(self) -> str:
        """ "alike", "above", "below" or "undecided", see the module's text."""
        if -self.margin < self.low and self.high < self.margin:
            return "alike"
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "undecided"

    @property
    def p(self) -> float:
        """p of the word, below 0.05 unless it is "undecided".

        Of "alike": that the true difference is as large as the margin, twice the larger p of two one-sided tests, so
        that it goes with the 95 % interval. Of all others: that there is no difference.
        """
        distance = abs(self.mean) if self.word != "alike" else self.margin - abs(self.mean)
        return float(2 * student.sf(distance / max(self.error, 1e-12), self.freedom))

    def __str__(self) -> str:
        scale, digits = (100, 1) if KEYS[self.key][1] == "points" else (1, 2)
        mean, low, high = (f"{scale * x:+.{digits}f}" for x in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


class Prediction(NamedTuple):
    """``variant`` of a recorded experiment is "above", "below", "like" or "not above" ``other`` in a column ``key``.

    other: a variant, "untrained" (the variant's own network before its training), a baseline ("pixels"), or a number.
    """

    experiment: str
    variant: str
    relation: str
    other: str | float
    key: str = "knn"

    def __str__(self) -> str:
        return f"{self.variant} − {self.other}"


class Claim(NamedTuple):
    """What is claimed, who says so, what the paper measured, and the predictions that follow.

    size: of the accuracy that the claim is about. control: the name of its positive control in ``claims.json``.
    """

    text: str
    who: str
    paper: str
    predictions: Sequence[Prediction]
    size: float = 0.03
    control: str = "learning"


class Entry(NamedTuple):
    """A claim with the effect of each prediction (None where nothing is recorded) and what follows from them.

    outcomes, raw: at 95 % each; corrected: for the number of predictions; obstacles: why the record cannot judge.
    """

    claim: Claim
    effects: list[Effect | None]
    outcomes: list[str]
    raw: str
    corrected: str
    obstacles: list[str]

    @property
    def verdict(self) -> str:
        """The corrected verdict, if the record can bear on the claim."""
        if "not recorded" in self.outcomes:
            return "not recorded"
        return "cannot bear on it" if self.obstacles else self.corrected


def effect(
    values: Sequence[float],
    others: Sequence[float] | float = 0.0,
    key: str = "knn",
    table: np.ndarray | None = None,
) -> Effect:
    """Mean of ``values`` − ``others``, (seeds,) each or ``others`` one number, with its error.

    key: what the values are. table: all variants of the experiment, (variants, seeds), to pool the spread over: what
    is left when the mean of each variant and, where seeds are paired, of each seed is taken off (a randomised block
    design). Default: of these two alone, which is the paired t-test. Raises ValueError if there are fewer than two
    seeds: one has no spread.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(others, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"An interval needs two seeds or more, got {x.tolist()}.")
    if table is None:
        table = np.stack((x, y)) if y.ndim else x[None]
    # Residuals of a two-way layout: what is left has (variants − 1)(seeds − 1) degrees of freedom, or, where there
    # is nothing to pair with, variants (seeds − 1). A difference of two means has twice the variance of one.
    rest = table - table.mean(1, keepdims=True)
    rest = rest - rest.mean(0) if y.ndim else rest
    freedom = (len(table) - y.ndim) * (len(x) - 1)
    error = ((1 + y.ndim) * np.square(rest).sum() / freedom / len(x)) ** 0.5
    return Effect(float((x - y).mean()), float(error), freedom, key)


def outcome(relation: str, word: str | None) -> str:
    """ "holds", "fails", "open", or "not recorded", from the word for a difference."""
    if relation not in FITTING:
        raise ValueError(f"A relation is one of {', '.join(FITTING)}, got {relation!r}.")
    if word is None:
        return "not recorded"
    if word == "undecided":
        return "open"
    return "holds" if word in FITTING[relation] else "fails"


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


def holm(p: Sequence[float]) -> np.ndarray:
    """p values corrected for their number (Holm, 1979): the chance of one false alarm or more stays at the level.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order, adjusted = np.argsort(p), np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1)
    return adjusted


def record_of(name: str, runs: Path | None = None) -> Study:
    """The record behind a prediction: an experiment of "ablations", or the comparison of "relatives".

    runs: the folder of both; default, that of the recorded runs.
    """
    return load_experiment(_folder(name) if runs is None else runs / _folder(name))


def measure(prediction: Prediction, source: Source = record_of) -> Effect | None:
    """What the record says about one prediction; None where there is no record, or not of both for all seeds."""
    _, variant, _, other, key = prediction
    try:
        record = source(prediction.experiment)
        seeds = {name: tuple(record.column(name, "seed")) for name in record.groups}
        alike = [name for name in seeds if seeds[name] == seeds[variant]]
        if len(seeds[variant]) < 2:
            return None
        table, against = np.stack([record.column(name, key) for name in alike]), 0.0
        if other == "untrained" and UNTRAINED + key in record.rows[0]:
            table = table - np.stack([record.column(name, UNTRAINED + key) for name in alike])
        elif isinstance(other, (int, float)):
            against = other
        elif other in record.baselines:
            against = _accuracy(record.baselines[other], key)
        elif other in alike:
            against = table[alike.index(other)]
        else:
            return None
        return effect(table[alike.index(variant)], against, key, table)
    except (FileNotFoundError, KeyError):
        return None


def obstacles(
    claim: Claim, effects: Sequence[Effect | None], source: Source = record_of
) -> list[str]:
    """Why the record cannot bear on a claim, in words; empty if it can."""
    recorded = [(p, d) for p, d in zip(claim.predictions, effects, strict=True) if d is not None]
    reasons = [_weaknesses(p, d, source(p.experiment), claim.size) for p, d in recorded]
    return list(dict.fromkeys(chain(*reasons, _unseen(claim, source))))


def _weaknesses(p: Prediction, d: Effect, record: Study, size: float) -> Iterator[str]:
    """What keeps a record from judging one prediction."""
    seeds = len(record.column(p.variant, "seed"))
    if seeds < RULES["seeds"]:
        yield f"{seeds} seeds, not {RULES['seeds']}"
    points = KEYS[p.key][1] == "points"
    limit = min(d.margin, size) if points else d.margin
    if d.half_width >= limit:
        wide, narrow = (100 * x if points else x for x in (d.half_width, limit))
        yield f"{p}: ± {wide:.1f} is no narrower than {narrow:.1f}"
    if p.other == "untrained" and UNTRAINED + p.key not in record.rows[0]:
        yield "the untrained network is known without its spread"
    if p.other in record.points:
        steps = {name: record.steps(name) for name in (p.variant, p.other)}
        if max(steps.values()) > (1 + RULES["budget"]) * min(steps.values()):
            yield f"{p}: {steps[p.variant]} steps against {steps[p.other]}"
    yield from _badly_tuned(record)
    # Of one seed, as in a study that is under way, there is no interval.
    means = {n: s.mean for n in record.groups if (s := record.score(n)).seeds > 1}
    best = max(means, key=means.get)
    pixels = record.baselines.get("pixels")
    if pixels is not None and effect(record.column(best, "knn")).low <= _accuracy(pixels, "knn"):
        yield f"its best variant, {best}, does not beat the pixels"


def _badly_tuned(record: Study) -> Iterator[str]:
    """What is unfair in how the points of a record were tuned, where they were."""
    plan, tried = record.settings.get("tuning"), record.tuning.get("tried", [])
    if not plan:
        return
    trials = Counter(row[record.key] for row in tried)
    if len(set(trials.values())) > 1:
        yield f"tuned with {max(trials.values())} trainings against {min(trials.values())}"
    if any(len(chosen) < 2 for chosen in record.tuning.get("chosen", {}).values()):
        yield "tuned in the learning rate alone"
    steps = plan["epochs"] * (plan["images"] // record.config["batch_size"])
    whole = max(record.steps(point) for point in record.groups)
    if (1 + RULES["budget"]) * steps < whole:
        yield f"tuned on {steps} of {whole} steps"


def _unseen(claim: Claim, source: Source) -> Iterator[str]:
    """The positive control of a claim, if the record does not show it."""
    control = DECLARED["controls"][claim.control]
    prediction = Prediction(*control["prediction"])
    seen = measure(prediction, source)
    if seen is None:
        yield f"the control is not recorded ({control['known']})"
    elif outcome(prediction.relation, seen.word) != "holds" or abs(seen.mean) < claim.size:
        sizes = f"{100 * seen.mean:+.1f} points, and the claim is about {100 * claim.size:.1f}"
        yield f"the control, {control['known']}, measures {sizes}"


def _accuracy(baseline: float | Mapping[str, Any], key: str) -> float:
    """A baseline is one number, the kNN accuracy, or a row of numbers."""
    return baseline[key] if isinstance(baseline, Mapping) else baseline


def judge(claims: Sequence[Claim], source: Source = record_of) -> list[Entry]:
    """The rows of the ledger, corrected for the number of predictions that they hold together."""
    effects = [[measure(p, source) for p in claim.predictions] for claim in claims]
    corrected = iter(holm([d.p for row in effects for d in row if d]))
    entries = []
    for claim, row in zip(claims, effects, strict=True):
        words = [d and d.word for d in row]
        strict = [w and (w if next(corrected) <= RULES["level"] else "undecided") for w in words]
        relations = [p.relation for p in claim.predictions]
        raw, fixed = (list(map(outcome, relations, each)) for each in (words, strict))
        reasons = obstacles(claim, row, source)
        entries.append(Entry(claim, row, raw, verdict(raw), verdict(fixed), reasons))
    return entries


def ledger(source: Source = record_of) -> list[Entry]:
    """All claims of ``claims.json``, judged by the record."""
    return judge(claims(), source)


def claims() -> list[Claim]:
    """The claims that come with the package."""
    rows = DECLARED["claims"]
    return [Claim(**c | {"predictions": [Prediction(*p) for p in c["predictions"]]}) for c in rows]


def ledger_table(entries: Sequence[Entry], runs: str = "../data/runs") -> str:
    """The ledger as a Markdown table; ``runs`` is where the links to the records lead."""
    head = ("#", "claim", "who says so", "the paper", "our runs: difference [95 %]")
    head += ("at 95 % each", "corrected", "verdict here")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for i, e in enumerate(entries, 1):
        lines = [_line(p, x) for p, x in zip(e.claim.predictions, e.effects, strict=True)]
        folders = dict.fromkeys(p.experiment for p in e.claim.predictions)
        links = ", ".join(f"[{f}]({runs}/{_folder(f)})" for f in folders)
        measured = "<br>".join([*lines, f"runs: {links}"])
        final = "<br>".join([f"**{e.verdict}**", *e.obstacles])
        cells = (e.claim.text, e.claim.who, e.claim.paper, measured, e.raw, e.corrected, final)
        rows.append(f"| {i} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _line(prediction: Prediction, difference: Effect | None) -> str:
    name, unit = KEYS[prediction.key]
    measured = f"{difference} {unit}".strip() if difference else "not recorded"
    return f"{prediction}, {name}: {measured}"


def _folder(name: str) -> str:
    return name if name == "relatives" else f"ablations/{name}"
