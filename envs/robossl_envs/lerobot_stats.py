"""Statistics of per-frame columns: compute them for an episode, and merge episodes without reading frames again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

NAMES = ("min", "max", "mean", "std", "count")


def column_statistics(table: pa.Table) -> dict[str, dict[str, list[float]]]:
    """Return the statistics of every numeric or boolean column, as {column: {statistic: values}}.

    Each statistic has one value per dimension of the column, except `count`, whose only value is the number of rows.
    """
    found = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type):
            continue
        values = column.flatten() if isinstance(column, pa.FixedSizeListArray) else column
        matrix = values.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(table), -1)
        found[name] = {
            "min": matrix.min(axis=0).tolist(),
            "max": matrix.max(axis=0).tolist(),
            "mean": matrix.mean(axis=0).tolist(),
            "std": matrix.std(axis=0).tolist(),
            "count": [len(table)],
        }
    return found


class EpisodeStatistics:
    """Merges the statistics of episodes."""

    def __init__(self) -> None:
        self._joined: dict[str, dict[str, Float[ndarray, " *d"]]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the statistics of one episode; `row` is its metadata row, with keys `stats/<column>/<name>`."""
        for key in [name.removeprefix("stats/").removesuffix("/mean") for name in row if name.endswith("/mean")]:
            new = {name: np.asarray(row[f"stats/{key}/{name}"], np.float64) for name in NAMES}
            old = self._joined.get(key)
            self._joined[key] = new if old is None else _join(old, new)

    def result(self) -> dict[str, dict[str, Any]]:
        """Return the merged statistics in the layout of `stats.json`."""
        return {
            key: {
                name: value.astype(np.int64).tolist() if name == "count" else value.tolist()
                for name, value in of.items()
            }
            for key, of in self._joined.items()
        }


def _join(
    a: Mapping[str, Float[ndarray, " *d"]], b: Mapping[str, Float[ndarray, " *d"]]
) -> dict[str, Float[ndarray, " *d"]]:
    """Merge the statistics of two sets of rows (Chan, Golub & LeVeque 1979)."""
    count = a["count"] + b["count"]
    share_a, share_b = float(a["count"][0] / count[0]), float(b["count"][0] / count[0])
    mean = share_a * a["mean"] + share_b * b["mean"]
    between = share_a * share_b * np.square(a["mean"] - b["mean"])
    variance = share_a * np.square(a["std"]) + share_b * np.square(b["std"]) + between
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": count,
    }
