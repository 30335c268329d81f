"""The ledger's rules on made-up records: each verdict can be reached, and none without its evidence."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from barlow_edu.studies import ablations as experiments
from barlow_edu.studies import ledger
from barlow_edu.studies.ledger import Claim, Effect, Prediction
from barlow_edu.studies.study import Study

NOISE = np.array([0.004, -0.001, -0.003])


def record(seeds=range(3), noise=NOISE, **means):
    """A study in memory: each variant has its mean, and by seed a noise of its own."""
    study = Study("e", {"key": "variant", "points": {name: {} for name in means}, "config": {}})
    study.results["baselines"] = {"untrained": 0.2}
    for name, mean in means.items():
        shifted = np.roll(noise, len(name))
        study.rows += [
            {"variant": name, "seed": k, **dict.fromkeys(ledger.KEYS, mean + shifted[k])}
            for k in seeds
        ]
    return study


def judged(*predictions, **means):
    claim = Claim("c", "w", "p", [Prediction("e", *p) for p in predictions])
    return ledger.judge(claim, lambda name: record(**means))


def test_the_interval_is_that_of_scipys_paired_t_test():
    a, b = np.array([0.41, 0.38, 0.44, 0.40]), np.array([0.36, 0.37, 0.37, 0.35])
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    assert ledger.effect(a, b)[:3] == pytest.approx((np.mean(a - b), low, high))
    low, high = ttest_1samp(a, 0.2).confidence_interval(0.95)
    assert ledger.effect(a, 0.2)[:3] == pytest.approx((a.mean() - 0.2, low - 0.2, high - 0.2))
    with pytest.raises(ValueError, match="two seeds"):
        ledger.effect([0.4], [0.3])


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0.01, 0.08, "above"),
        (-0.08, -0.01, "below"),
        (-0.02, 0.02, "alike"),
        (0.001, 0.02, "alike"),  # surely above 0, but by too little to care
        (-0.04, 0.02, "undecided"),
        (-0.02, 0.05, "undecided"),
        (-0.03, 0.01, "undecided"),  # the margin itself is outside
    ],
)
def test_what_an_interval_says(low, high, kind):
    assert Effect((low + high) / 2, low, high).word == kind


@pytest.mark.parametrize(
    ("relation", "holding"),
    [
        ("above", {"above"}),
        ("below", {"below"}),
        ("like", {"alike"}),
        ("not above", {"alike", "below"}),
    ],
)
def test_outcomes_of_every_relation(relation, holding):
    kinds = {"above": (0.05, 0.09), "below": (-0.09, -0.05), "alike": (-0.01, 0.01)}
    for kind, (low, high) in kinds.items():
        found = ledger.outcome(Prediction("e", "a", relation, "b"), Effect(0, low, high))
        assert found == ("holds" if kind in holding else "fails")
    p = Prediction("e", "a", relation, "b")
    assert ledger.outcome(p, Effect(0, -0.1, 0.1)) == "open"
    assert ledger.outcome(p, None) == "not recorded"


def test_an_unknown_relation_is_named():
    with pytest.raises(ValueError, match="beats"):
        ledger.outcome(Prediction("e", "a", "beats", "b"), None)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "fails"], "holds in part"),
        (["holds", "fails", "open"], "holds in part"),
        (["fails", "fails"], "does not hold"),
        (["fails", "open"], "does not hold"),
        (["holds", "open"], "undecided"),
        (["open"], "undecided"),
        (["holds", "not recorded"], "not recorded"),
    ],
)
def test_verdicts(outcomes, verdict):
    assert ledger.verdict(outcomes) == verdict


def test_every_verdict_follows_from_a_record():
    assert judged(("a", "above", "b"), a=0.5, b=0.4).verdict == "holds"
    assert judged(("a", "above", "b"), a=0.4, b=0.5).verdict == "does not hold"
    assert judged(("a", "above", "b"), a=0.401, b=0.4).verdict == "does not hold"  # alike
    both = (("a", "above", "b"), ("bb", "above", "a"))
    assert judged(*both, a=0.5, b=0.4, bb=0.3).verdict == "holds in part"
    assert judged(("a", "above", "missing"), a=0.5).verdict == "not recorded"
    assert judged(("a", "not above", "untrained"), a=0.201).verdict == "holds"
    assert judged(("a", "not above", "untrained"), a=0.4).verdict == "does not hold"


def test_a_wide_spread_is_undecided():
    wide = record(noise=np.array([0, 0.1, 0.3]), aa=0.5, b=0.5)
    claim = Claim("c", "w", "p", [Prediction("e", "aa", "above", "b")])
    assert ledger.judge(claim, lambda name: wide).verdict == "undecided"


def test_no_record_no_verdict():
    def nothing(name):
        raise FileNotFoundError(name)

    claim = Claim("c", "w", "p", [Prediction("e", "a", "above", "b")])
    entry = ledger.judge(claim, nothing)
    assert entry.effects == [None] and entry.verdict == "not recorded"


def test_ranks_have_a_margin_of_their_own():
    assert Effect(0.5, 0.2, 0.8).word == "above"
    assert Effect(0.5, 0.2, 0.8, "effective_rank_z").word == "alike"
    assert str(Effect(-11.0, -12.0, -10.0, "effective_rank_z")) == "-11.00 [-12.00, -10.00]"
    entry = judged(("a", "below", "b", "effective_rank_z"), a=2.0, b=13.0)
    assert entry.verdict == "holds" and "effective rank of z: -11.00" in ledger.ledger_table(
        [entry]
    )


@pytest.mark.parametrize("other", ["b", "untrained"])
def test_one_seed_is_no_record(other):
    single = record(seeds=[0], a=0.5, b=0.4)
    assert ledger.measure(Prediction("e", "a", "above", other), lambda name: single) is None


def test_other_seeds_are_not_compared():
    uneven = record(a=0.5, b=0.4)
    uneven.rows.pop()
    assert ledger.measure(Prediction("e", "a", "above", "b"), lambda name: uneven) is None


def test_the_spread_is_pooled_over_all_variants():
    three = record(a=0.5, b=0.4, ccc=0.3)
    table = np.stack([three.column(name, "knn") for name in three.groups])
    measured = ledger.measure(Prediction("e", "a", "above", "b"), lambda name: three)
    assert measured == ledger.effect(table[0], table[1], table=table)
    assert measured.low != ledger.effect(table[0], table[1]).low


def test_claims_speak_of_variants_that_are_declared():
    declared = experiments.declaration("ablations")["experiments"]
    for claim in ledger.claims():
        assert claim.predictions and claim.text and claim.who and claim.paper
        for p in claim.predictions:
            assert p.relation in ledger.FITTING and p.key in ledger.KEYS
            if p.experiment != "relatives":
                names = {*declared[p.experiment]["variants"], "untrained", "pixels"}
                assert {p.variant, p.other} <= names, p


def test_the_table_shows_every_difference_and_links_to_the_runs():
    entry = judged(("a", "above", "b"), ("a", "like", "gone"), a=0.5, b=0.4)
    table = ledger.ledger_table([entry], runs="runs")
    head, rule, row = table.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "[e](runs/ablations/e)" in row and "a − gone, kNN: not recorded" in row
    low, high = (100 * x for x in entry.effects[0][1:3])
    assert (
        f"a − b, kNN: +10.0 [{low:+.1f}, {high:+.1f}] points" in row and "**not recorded**" in row
    )
