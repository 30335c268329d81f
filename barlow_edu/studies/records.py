"""What recorded trainings have in common, whatever was varied: one row of numbers for each group and seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from barlow_edu.evaluation.probes import Score


class SeededRows:
    """Rows of trainings, each of a group (a method, a variant) and a seed.

    A subclass says under which key a row names its group, sets ``rows``, and orders the groups.
    """

    key: str
    rows: list[dict[str, Any]]

    @property
    def groups(self) -> list[str]:
        """Names of the groups with at least one training."""
        raise NotImplementedError

    def column(self, group: str, name: str) -> np.ndarray:
        """One number of each training of a group, by seed, (seeds,). Raises KeyError naming what there is."""
        rows = sorted((r for r in self.rows if r[self.key] == group), key=lambda r: r["seed"])
        if not rows:
            raise KeyError(f"No {self.key} {group!r}. There are {', '.join(self.groups)}.")
        if name not in rows[0]:
            raise KeyError(f"No column {name!r}. There are {', '.join(rows[0])}.")
        return np.array([row[name] for row in rows])

    def score(self, group: str, name: str = "knn") -> Score:
        """Mean and standard deviation over the seeds."""
        return Score.of(self.column(group, name).tolist())

    def differences(self, group: str, other: str, name: str = "knn") -> np.ndarray:
        """``group`` minus ``other``, seed by seed, (seeds,). Raises ValueError if the seeds differ.

        Both of a pair started from the same encoder and saw the same batches.
        """
        a, b = self.column(group, "seed"), self.column(other, "seed")
        if a.tolist() != b.tolist():
            raise ValueError(f"{group!r} has the seeds {a.tolist()}, {other!r} has {b.tolist()}.")
        return self.column(group, name) - self.column(other, name)

    def difference(self, group: str, other: str, name: str = "knn") -> Score:
        """Mean and standard deviation over the seeds of ``group`` minus ``other``, seed by seed."""
        return Score.of(self.differences(group, other, name).tolist())

    def interval(
        self, group: str, name: str = "knn", other: str | None = None
    ) -> tuple[float, float]:
        """95 % interval (Student's t) of the mean over seeds, or of the mean difference to another group.

        Of one seed there is no interval: (nan, nan).
        """
        from scipy.stats import t

        values = self.column(group, name)
        if other is not None:
            values = self.differences(group, other, name)
        if len(values) < 2:
            return float("nan"), float("nan")
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
        return float(values.mean() - half), float(values.mean() + half)
