"""What becomes of an evaluation: means over the seeds, added to the run's evaluation.json, and printed as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from barlow_edu.evaluation.probes import Score
from barlow_edu.runs import Run
from barlow_edu.storage.files import check_still_there, write_json


def add_to_run(run: Run, new: Mapping[str, Any]) -> None:
    """Add results to the run's evaluation.json; an evaluation of the same images in other sizes is replaced.

    Those of other images than the run's stand under "transfer". What the new results have not asked stays.
    """
    check_still_there(run.path)
    write_json(run.path / "evaluation.json", _merged(Run(run.path).evaluation, new))


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    if new["data"] != new["trained_on"]:
        return old | {"transfer": old.get("transfer", {}) | {new["data"]: dict(new)}}
    same = ("data", "k", "temperature", "train_images", "test_images")
    if any(old.get(key) != new[key] for key in same):
        return {**new, **{key: old[key] for key in ("transfer",) if key in old}}
    rows = dict(old["rows"])
    for name, row in new["rows"].items():
        # The old deviations go: they belong to means that are no longer there.
        rows[name] = {k: v for k, v in rows.get(name, {}).items() if k != "sd"} | row
    tuned = old.get("fine_tuning", {}) | new.get("fine_tuning", {})
    return {**old, **new, "rows": rows} | ({"fine_tuning": tuned} if tuned else {})


def means(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of an evaluation from what each seed answered: means, and in "sd" the deviations that are not 0."""
    columns = {key: [answer[key] for answer in answers] for key in answers[0]}
    chosen, few = columns.pop("regularization", None), columns.pop("few", None)
    scores = {key: None if None in v else Score.of(v) for key, v in columns.items()}
    row: dict[str, Any] = {key: score and round(score.mean, 4) for key, score in scores.items()}
    row |= {"regularization": chosen, "seeds": len(answers)} if chosen else {"seeds": len(answers)}
    if len(answers) > 1:
        sd = {key: round(scores[key].sd, 4) for key in ("knn", "linear") if key in scores}
        row["sd"] = {key: x for key, x in sd.items() if x > 0}
    if few:
        means = {n: [scores[n].mean for scores in few] for n in few[0]}
        row["few"] = {str(n): Score.of(values).rounded() for n, values in means.items()}
    return row


def evaluation_table(results: Mapping[str, Any]) -> str:
    """What ``evaluate`` returned, as aligned columns; further parts below, as far as they are there."""
    rows, data, seeds = results["rows"], results["data"], results["protocol"]["seeds"]
    trained_on = results.get("trained_on", data)
    lines = [
        f"{data}: {results['train_images']:,} training and {results['test_images']:,} test images, "
        f"kNN with k = {results['k']}, temperature {results['temperature']}"
    ]
    lines += [f"The run was trained on other images: {trained_on}"] if trained_on != data else []
    wide = 15 if any("sd" in row for row in rows.values()) else 11
    lines.append(_line("", ("kNN", "linear", "eff. rank", "RankMe", "alpha"), wide))
    for name, row in rows.items():
        cells = [_percent(row.get(key), row.get("sd", {}).get(key)) for key in ("knn", "linear")]
        numbers = ((row.get("effective_rank"), 1), (row.get("rankme"), 1), (row.get("alpha"), 2))
        cells += ["-" if x is None else f"{x:.{digits}f}" for x, digits in numbers]
        lines.append(_line(name, cells, wide))
    if "identity" in results:
        near, states = results["identity"], ("untrained", "trained")
        what = f"C of {near['pairs']:,} test pairs, all {near['dim']} dimensions"
        columns = {"distance": "‖C − I‖ / √D", "diagonal": "mean C_ii", "rms": "rms off it"}
        lines += ["", f"{what}:", _line("", [*columns.values(), "chance"])]
        lines += [_line(s, [f"{near[s][k]:.3f}" for k in (*columns, "floor")]) for s in states]
    lines += _scores("Linear probe", {n: row["few"] for n, row in rows.items() if "few" in row})
    tuned = {n: s for n, s in results.get("fine_tuning", {}).items() if n != "budget"}
    starts = ("pretrained", "random init") if tuned else ()
    table = {start: {n: scores[start] for n, scores in tuned.items()} for start in starts}
    lines += _scores("All weights trained with labels", table)
    if len(seeds) > 1:
        over = f"Mean ± standard deviation over {len(seeds)} seeds, where a seed changes something."
        lines += ["", over]
    return "\n".join(lines)


def _scores(title: str, table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    counts = list(next(iter(table.values()), ()))
    lines = ["", f"{title}, labels a class:", _line("", counts)] if counts else []
    for name, scores in table.items():
        cells = [
            (scores[n]["mean"], scores[n]["sd"]) if n in scores else (None, None) for n in counts
        ]
        lines.append(_line(name, [_percent(*cell) for cell in cells]))
    return lines


def _line(name: str, cells: Sequence[str], wide: int = 15) -> str:
    return f"{name:18}" + "".join(f"{cell:>{wide}}" for cell in cells)


def _percent(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}{f' ± {100 * sd:.1f}' if sd else ''} %"
