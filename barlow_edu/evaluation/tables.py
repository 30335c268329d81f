"""Evaluations and plans as text, for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def evaluation_table(found: Mapping[str, Any]) -> str:
    """What ``evaluate`` found, as aligned columns; further parts below, as far as they are there."""
    lines = [
        f"{found['data']}: {found['train_images']:,} training and {found['test_images']:,} test images, "
        f"kNN with k = {found['k']}, temperature {found['temperature']}"
    ]
    heads = ("kNN", "linear", "eff. rank", "RankMe", "alpha")
    wide = 15 if any("sd" in row for row in found["rows"].values()) else 11
    lines.append(f"{'':18}" + "".join(f"{h:>{wide}}" for h in heads))
    for name, row in found["rows"].items():
        cells = [_percent(row, "knn"), _percent(row, "linear"), _number(row, "effective_rank", 1)]
        cells += [_number(row, "rankme", 1), _number(row, "alpha", 2)]
        lines.append(f"{name:18}" + "".join(f"{cell:>{wide}}" for cell in cells))
    return "\n".join(lines + _few(found) + _fine_tuning(found) + _seeds(found))


def _few(found: Mapping[str, Any]) -> list[str]:
    rows = {name: row["few"] for name, row in found["rows"].items() if row.get("few")}
    if not rows:
        return []
    counts = list(next(iter(rows.values())))
    lines = ["", "Linear probe, labels a class:", f"{'':18}" + "".join(f"{n:>15}" for n in counts)]
    for name, scores in rows.items():
        lines.append(f"{name:18}" + "".join(f"{_score(scores[n]):>15}" for n in counts))
    return lines


def _fine_tuning(found: Mapping[str, Any]) -> list[str]:
    scores = {n: s for n, s in found.get("fine_tuning", {}).items() if n != "budget"}
    if not scores:
        return []
    head = ["", "All weights trained with labels, labels a class:"]
    lines = [*head, f"{'':18}" + "".join(f"{n:>15}" for n in scores)]
    for start in ("pretrained", "random init"):
        lines.append(f"{start:18}" + "".join(f"{_score(s[start]):>15}" for s in scores.values()))
    return lines


def _seeds(found: Mapping[str, Any]) -> list[str]:
    seeds = found["protocol"]["seeds"]
    if len(seeds) < 2:
        return []
    return [
        "",
        f"Mean ± standard deviation over {len(seeds)} seeds, where a seed changes something.",
    ]


def _percent(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return "-"
    sd = row.get("sd", {}).get(key)
    return f"{100 * row[key]:.1f}{'' if sd is None else f' ± {100 * sd:.1f}'} %"


def _number(row: Mapping[str, Any], key: str, digits: int) -> str:
    return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"


def _score(score: Mapping[str, float]) -> str:
    sd = f" ± {100 * score['sd']:.1f}" if score["sd"] else ""
    return f"{100 * score['mean']:.1f}{sd} %"


MEMORY_ROWS = {
    "parameters": "weights and buffers",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "views": "both views",
    "activations": "kept for the way back",
    "loss_matrix": "loss, matrix form",
    "loss_gram": "loss, gram form",
    "peak": "peak",
}


def plan_table(found: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What ``planner.plan`` found, as aligned lines."""
    n, gpus, memory = found["batch_size"], found["gpus"], found["memory_gb"]
    share = f" = {gpus} x {found['images_per_gpu']:,}" if gpus > 1 else ""
    lines = [
        f"{found['name']}: {config['encoder']} at {config['image_size']} pixels, projector {config['proj_dim']}, "
        f"batch {n:,}{share}, {found['parameters'] / 1e6:.1f} million parameters",
        "",
        f"Memory of one GPU, simulated{'':17}GB",
    ]
    for key, name in MEMORY_ROWS.items():
        taken = " (taken)" if key == f"loss_{found['form']}" else ""
        lines.append(f"  {name + taken:32}{memory[key]:>10.3f}")
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    largest = found["largest_batch"]
    lines += [
        f"  {'of ' + format(found['gpu_memory_gb'], 'g') + ' GB: ' + fits}",
        f"  {'largest batch that fits':32}{largest or 'none':>10}",
        "",
        "Work",
        f"  {'operations an image':32}{found['operations_per_image'] / 1e9:>10.2f} GFLOP",
        f"  {'operations a step':32}{found['operations_per_step'] / 1e12:>10.3f} TFLOP",
        f"  {'steps':32}{found['steps']:>10,} ({found['epochs']} epochs of {found['images']:,} images)",
        f"  {'rate of one GPU':32}{found['tflops_per_gpu']:>10.2f} TFLOP/s ({found['rate_source']})",
        f"  {'seconds a step':32}{found['seconds_per_step']:>10.3f}",
        f"  {'hours':32}{found['hours']:>10.2f}",
        f"  {'GPU hours':32}{found['gpu_hours']:>10.1f}",
    ]
    if found["cost"] is not None:
        lines.append(f"  {'cost':32}{found['cost']:>10,.2f}")
    return "\n".join(lines + _remedy(found))


def _remedy(found: Mapping[str, Any]) -> list[str]:
    if found["fits"]:
        return []
    batch = found["largest_batch"]
    smaller = f"--set batch_size={batch}, " if batch else "a smaller encoder or proj_dim, "
    return [
        "",
        f"To make it fit: {smaller}--set checkpoint_activations=true (a third more operations), more GPUs "
        "(--gpus), or GPUs with more memory.",
    ]
