"""Draws one workload's figures as bars, peers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

OURS = "#7048e8"
THEIRS = "#adb5bd"
FLOOR = "#dee2e6"


def bars(title: str, unit: str, rows: Sequence[tuple[str, float, bool]], path: Path) -> None:
    """`rows`: label, value, is it ours; drawn from the smallest value down."""
    rows = sorted(rows, key=lambda row: row[1], reverse=True)
    figure, axes = pyplot.subplots(figsize=(8, 0.7 + 0.34 * len(rows)))
    labels, values = [row[0] for row in rows], [row[1] for row in rows]
    colours = [OURS if row[2] else THEIRS for row in rows]
    drawn = axes.barh(labels, values, color=colours, height=0.72)
    axes.bar_label(drawn, labels=[f"{value:.3g}" for value in values], padding=4, fontsize=9)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(unit, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(x=0.12)
    figure.patch.set_facecolor("white")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
