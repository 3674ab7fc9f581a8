"""The result of ``bench datapath`` as a plot: a panel for each of a few cases, a bar for each contestant."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.rounds import Row

# Title, case, figure, what one unit of the axis is.
PANELS: Final = (
    ("TCP, 1 stream, Gbit/s", "tcp1", "gbit", 1.0),
    ("the same, GSO split on the wire", "tcp1-split", "gbit", 1.0),
    ("CPU-s a GB, sending daemon", "tcp1", "sender_cpu", 1.0),
    ("CPU-s a GB, receiving daemon", "tcp1", "receiver_cpu", 1.0),
    ("idle round trip, µs", "rtt-idle", "p50_us", 1.0),
    ("round trip beside TCP, µs", "rtt-loaded", "p50_us", 1.0),
    ("64-octet packets received, thousands a second", "pps64", "received_per_s", 1e3),
    ("UDP at 1.5 Gbit/s, % lost", "udp-1500", "loss", 0.01),
)
COLUMNS: Final = 2
OURS_COLOUR, THEIR_COLOUR = "#1b6ca8", "#9aa5b1"


def draw(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: medians in the usual setting, and the interquartile range of each.

    Raises:
        ImportError: there is no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    usual = [row for row in rows if row.setting == rows[0].setting]
    panels = [panel for panel in PANELS if any((row.case, row.figure) == panel[1:3] for row in usual)]
    lines = max(-(-len(panels) // COLUMNS), 1)
    figure = Figure(figsize=(13, 3.3 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"kinkvpn {machine['commit']}, {machine['processor']}, {machine['cores']} cores")
    for axes, (title, case, name, unit) in zip(figure.subplots(lines, COLUMNS).flat, panels, strict=False):
        axes.set_title(title)
        for row in [row for row in usual if (row.case, row.figure) == (case, name)]:
            low, high = _quartiles(row.samples)
            spread = [[(row.median - low) / unit], [(high - row.median) / unit]]
            ours = row.contestant.startswith(("kinkvpn", "ceiling"))
            colour = OURS_COLOUR if ours else THEIR_COLOUR
            axes.barh(row.contestant, row.median / unit, xerr=spread, color=colour, capsize=3)
            axes.annotate(f" {row.median / unit:.3g}", (high / unit, row.contestant), va="center")
        axes.invert_yaxis()
        axes.margins(x=0.1)
    figure.savefig(path, dpi=100)


def _quartiles(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high
