"""The ledger's rules on made-up records: each verdict can be reached, and none without its evidence."""

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_rel

from barlow_edu.studies import ablations as experiments
from barlow_edu.studies import ledger
from barlow_edu.studies.ledger import Claim, Effect, Prediction
from barlow_edu.studies.study import Study

NOISE = np.array([0.004, -0.001, -0.003, 0.002, -0.004, 0.001, 0.003, -0.002])
LEARNS = {"both terms": 0.5, "invariance alone": 0.3}  # what the control "learning" asks for
THREE = NOISE[:3] + 0.0


def record(noise=NOISE, config=None, points=None, start=0.2, pixels=0.1, **means):
    """A study in memory: each variant has its mean, and by seed a noise of its own; and so has its untrained twin."""
    points = {name: {} for name in means} | (points or {})
    study = Study("e", {"key": "variant", "points": points, "config": config or {}})
    study.results["baselines"] = {"pixels": pixels}
    for name, mean in means.items():
        shifted = np.roll(noise, len(name))
        study.rows += [
            {"variant": name, "seed": k, **dict.fromkeys(ledger.KEYS, mean + x)}
            | {f"untrained_{key}": start + 2 * noise[k] for key in ledger.KEYS}
            for k, x in enumerate(shifted)
        ]
    return study


def claim(*predictions, **options):
    return Claim("c", "w", "p", [Prediction("e", *p) for p in predictions], **options)


def judged(*predictions, size=0.03, control="learning", **means):
    """The entry of one claim, on a record in which the controls are seen unless ``means`` say otherwise."""
    study = record(**{**{"both terms": 0.5}, **means})
    return ledger.judge([claim(*predictions, size=size, control=control)], lambda name: study)[0]


def difference(low, high, key="knn"):
    """A difference with that interval."""
    error = (high - low) / 2 / t.ppf(0.975, 7)
    return Effect((low + high) / 2, error, 7, key)


def test_interval_and_p_are_those_of_scipys_paired_t_test():
    a, b = np.array([0.41, 0.38, 0.44, 0.40]), np.array([0.36, 0.37, 0.37, 0.35])
    paired, shift = ttest_rel(a, b), ttest_1samp(a - 0.3, 0)
    for ours, theirs in ((ledger.effect(a, b), paired), (ledger.effect(a, 0.3), shift)):
        assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        assert ours.p == pytest.approx(theirs.pvalue)
    with pytest.raises(ValueError, match="two seeds"):
        ledger.effect([0.4], [0.3])


def test_the_pooled_interval_is_that_of_least_squares():
    """Fit mean + point + seed to all numbers; the interval of a contrast follows from the covariance."""
    table = np.random.default_rng(0).normal(0.4, 0.02, (5, 3)) + [[0], [0.1], [0], [0.05], [0]]
    point, seed = np.indices(table.shape)
    design = np.stack([np.ones(15), *(point.ravel() == k for k in range(1, 5))]
                      + [(seed.ravel() == k) for k in (1, 2)], axis=1).astype(float)  # fmt: skip
    coefficients, (rss,), rank, _ = np.linalg.lstsq(design, table.ravel(), rcond=None)
    contrast = np.array([0, 1, 0, 0, -1, 0, 0])  # point 1 − point 4
    error = (rss / (15 - rank) * contrast @ np.linalg.inv(design.T @ design) @ contrast) ** 0.5
    half = t.ppf(0.975, 15 - rank) * error
    middle = contrast @ coefficients
    expected = (middle, middle - half, middle + half)
    measured = ledger.effect(table[1], table[4], table=table)
    assert (measured.mean, measured.low, measured.high) == pytest.approx(expected)


def test_against_one_number_the_spread_is_that_within_the_points():
    table = np.random.default_rng(1).normal(0.4, 0.02, (4, 3))
    half = t.ppf(0.975, 8) * (table.var(1, ddof=1).mean() / 3) ** 0.5
    mean = table[2].mean() - 0.2
    measured = ledger.effect(table[2], 0.2, table=table)
    assert (measured.mean, measured.low, measured.high) == pytest.approx(
        (mean, mean - half, mean + half)
    )


def test_p_of_a_word_is_below_a_twentieth_where_the_interval_says_it():
    for low, high in ((0.001, 0.2), (-0.001, 0.2), (-0.029, 0.029), (-0.031, 0.029), (-0.2, -0.1)):
        d = difference(low, high)
        assert (d.p < 0.05) == (d.word != "undecided")
    twice = (
        ttest_1samp(NOISE, -0.03, alternative="greater"),
        ttest_1samp(NOISE, 0.03, alternative="less"),
    )
    expected = 2 * max(test.pvalue for test in twice)  # two one-sided tests, each at half the level
    assert ledger.effect(NOISE).p == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [  # as p.adjust of R, method "holm", says
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(p, adjusted):
    assert ledger.holm(p).tolist() == pytest.approx(adjusted)


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
    assert difference(low, high).word == kind


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
    for word in ("above", "below", "alike"):
        assert ledger.outcome(relation, word) == ("holds" if word in holding else "fails")
    assert ledger.outcome(relation, "undecided") == "open"
    assert ledger.outcome(relation, None) == "not recorded"


def test_an_unknown_relation_is_named():
    with pytest.raises(ValueError, match="beats"):
        ledger.outcome("beats", None)


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
    assert judged(("a", "not above", 0.4), a=0.401).verdict == "holds"
    assert judged(("a", "not above", 0.3), a=0.401).verdict == "does not hold"


def test_against_its_untrained_twin_the_spread_is_that_of_the_differences():
    study = record(a=0.5, bb=0.4)
    gains = np.stack(
        [study.column(v, "knn") - study.column(v, "untrained_knn") for v in ("a", "bb")]
    )
    measured = ledger.measure(Prediction("e", "a", "above", "untrained"), lambda name: study)
    assert measured == ledger.effect(gains[0], 0.0, table=gains)
    assert ttest_1samp(gains[0], 0).statistic != measured.mean / measured.error


def test_a_wide_spread_is_undecided_and_cannot_judge():
    entry = judged(("aa", "above", "b"), noise=30 * NOISE, aa=0.5, b=0.47, **{"both terms": 0.9})
    assert entry.raw == "undecided" and entry.verdict == "cannot bear on it"
    assert "aa − b: ± 9." in entry.obstacles[0] and "is no narrower than 3.0" in entry.obstacles[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": THREE}, "3 seeds, not 8"),
        ({"size": 0.001}, "a − b: ± 0.3 is no narrower than 0.1"),
        ({"pixels": 0.499}, "its best variant, both terms, does not beat the pixels"),
        ({"pixels": {"knn": 0.6}}, "its best variant, both terms, does not beat the pixels"),
        ({"config": {"epochs": 3, "limit": 640, "batch_size": 64},
          "points": {"b": {"batch_size": 32}}}, "a − b: 30 steps against 60"),
        ({"both terms": 0.21}, "untrained, measures +1.0 points, and the claim is about 3.0"),
        ({"both terms": 0.1}, "untrained, measures -10.0 points"),
        ({"control": "symmetry"}, "the control is not recorded (predictor and stop-gradient together"),
    ],
)  # fmt: skip
def test_what_keeps_a_record_from_judging(options, said):
    entry = judged(("a", "above", "b"), **{"a": 0.5, "b": 0.4, **options})
    assert entry.raw == "holds" and entry.verdict == "cannot bear on it"
    assert any(said in reason for reason in entry.obstacles), entry.obstacles
    assert len(entry.obstacles) == 1 or "noise" in options or "pixels" in options


def test_a_variant_that_has_one_seed_so_far_is_not_its_best():
    study = record(a=0.5, b=0.4, first=0.9, pixels=0.6, **{"both terms": 0.45})
    study.rows = [r for r in study.rows if r["variant"] != "first" or not r["seed"]]
    entry = ledger.judge([claim(("a", "above", "b"))], lambda name: study)[0]
    assert "its best variant, a, does not beat the pixels" in entry.obstacles


def test_the_untrained_network_needs_a_spread():
    study = record(a=0.5, **{"both terms": 0.5})
    study.results["baselines"]["untrained"] = 0.2
    study.rows = [{k: v for k, v in row.items() if "untrained" not in k} for row in study.rows]
    entry = ledger.judge([claim(("a", "above", "untrained"))], lambda name: study)[0]
    assert entry.raw == "holds" and "without its spread" in entry.obstacles[0]


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"epochs": 1}, "tuned on 6 of 30 steps"),
        ({"tried": [("a", 1), ("a", 2), ("b", 1)]}, "tuned with 2 trainings against 1"),
        ({"chosen": {"a": {"lr": 1}, "b": {"lr": 1}}}, "tuned in the learning rate alone"),
        ({}, None),
    ],
)
def test_tuning_has_to_be_fair(tuning, said):
    fair = {"epochs": 5, "tried": [("a", 1), ("b", 1)]}
    fair["chosen"] = {name: {"lr": 1, "ema": 1} for name in ("a", "b")}
    given = fair | tuning
    study = record(a=0.5, b=0.4, config={"epochs": 3, "limit": 640, "batch_size": 64})
    study.settings["tuning"] = {"epochs": given["epochs"], "images": 384}
    tried = [{"variant": name, "lr": lr} for name, lr in given["tried"]]
    study.results["tuning"] = {"tried": tried, "chosen": given["chosen"]}
    control = record(**{"both terms": 0.5})
    entry = ledger.judge(
        [claim(("a", "above", "b"))], lambda name: study if name == "e" else control
    )[0]
    assert entry.obstacles == ([said] if said else [])


def test_what_holds_alone_may_be_chance_among_many():
    study = record(noise=0 * NOISE, a=0.4, c=0.45)
    for row, z in zip(study.rows[8:], NOISE / NOISE.std(ddof=1), strict=True):
        row["knn"] += 0.04 * z
    alone = claim(("c", "above", "a"))
    few, many = (ledger.judge([alone] * n, lambda name: study)[0] for n in (1, 60))
    assert few.effects[0].p == pytest.approx(ttest_1samp(study.column("c", "knn"), 0.4).pvalue)
    assert 0.05 / 60 < few.effects[0].p < 0.05
    assert (few.raw, few.corrected) == ("holds", "holds")
    assert (many.raw, many.corrected) == ("holds", "undecided")


def test_no_record_no_verdict():
    def nothing(name):
        raise FileNotFoundError(name)

    entry = ledger.judge([claim(("a", "above", "b"))], nothing)[0]
    assert entry.effects == [None] and entry.verdict == entry.raw == "not recorded"


def test_ranks_have_a_margin_of_their_own():
    assert difference(0.2, 0.8).word == "above"
    assert difference(0.2, 0.8, "effective_rank_z").word == "alike"
    assert str(difference(-12.0, -10.0, "effective_rank_z")) == "-11.00 [-12.00, -10.00]"
    entry = judged(("a", "below", "b", "effective_rank_z"), a=2.0, b=13.0, pixels=-1)
    assert entry.verdict == "holds" and "effective rank of z: -11.00" in ledger.ledger_table(
        [entry]
    )


@pytest.mark.parametrize("other", ["b", "untrained"])
def test_one_seed_is_no_record(other):
    single = record(noise=NOISE[:1], a=0.5, b=0.4)
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
    assert ledger.KEYS.keys() == ledger.RULES["margins"].keys()
    controls = ledger.DECLARED["controls"].values()
    controls = [Claim("c", "w", "p", [Prediction(*c["prediction"])]) for c in controls]
    for claim in ledger.claims() + controls:
        assert claim.predictions and claim.text and claim.who and claim.paper
        for p in claim.predictions:
            assert p.relation in ledger.FITTING and p.key in ledger.KEYS
            assert 0 < claim.size < 1 and claim.control in ledger.DECLARED["controls"]
            if p.experiment != "relatives":
                names = {*declared[p.experiment]["variants"], "untrained", "pixels"}
                assert p.variant in names and (p.other in names or p.other > 0), p


def test_the_table_shows_every_difference_and_links_to_the_runs():
    entry = judged(("a", "above", "b"), ("a", "like", "gone"), a=0.5, b=0.4)
    table = ledger.ledger_table([entry], runs="runs")
    head, rule, row = table.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "[e](runs/ablations/e)" in row and "a − gone, kNN: not recorded" in row
    low, high = 100 * entry.effects[0].low, 100 * entry.effects[0].high
    assert f"a − b, kNN: +10.0 [{low:+.1f}, {high:+.1f}] points" in row
    assert row.endswith("| not recorded | not recorded | **not recorded** |")
