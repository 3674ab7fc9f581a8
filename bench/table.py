"""The result of ``bench datapath`` as text: a block for each setting and kind of figure, then the ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.contestants.contestant import Setting
    from bench.rounds import Row

NAME_CELLS: Final = 18
GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Block:
    """Columns for every case that has the first of ``figures``; each in a cell as ``write`` has it."""

    title: str
    figures: tuple[str, ...]
    write: Callable[[float], str]


BLOCKS: Final = (
    Block("TCP, Gbit/s", ("gbit",), "{:.2f}".format),
    Block("CPU seconds a GB of the daemon that sends / receives", ("sender_cpu", "receiver_cpu"), "{:.2f}".format),
    Block("round trip in µs, median / 99th percentile", ("p50_us", "p99_us"), "{:.0f}".format),
    Block("packets of 64 octets a second, received / sent", ("received_per_s", "sent_per_s"), "{:,.0f}".format),
    Block("UDP of 1,300 octets, fraction lost / Gbit/s sent", ("loss", "sent_gbit"), "{:.3f}".format),
)


def of(result: dict[str, Any], rows: Sequence[Row]) -> str:
    """All of it.

    Args:
        result: what ``--json`` prints.
        rows: those of it.
    """
    head = " · ".join(f"{key} {value}" for key, value in result["machine"].items())
    programs = "\n".join(f"{name:<{NAME_CELLS}}  {text}" for name, text in result["programs"].items())
    effort = f"medians of {result['rounds']} rounds of {result['seconds']} s; ± interquartile range over median"
    settings = dict.fromkeys(row.setting for row in rows)
    blocks = [text for setting in settings for block in BLOCKS if (text := _block(block, setting, rows))]
    return "\n\n".join([f"{head}\n{effort}", programs, *blocks, placements(rows), _ratios(result)])


def _block(block: Block, setting: Setting, rows: Sequence[Row]) -> str:
    found = {(row.contestant, row.case, row.figure): row for row in rows if row.setting == setting}
    cases = [*dict.fromkeys(case for _, case, figure in found if figure == block.figures[0])]
    names = [*dict.fromkeys(name for name, _, figure in found if figure == block.figures[0])]
    if not cases:
        return ""
    cells = [[name, *(_cell(block, name, case, found) for case in cases)] for name in names]
    return f"{block.title}; {setting}\n" + columns([["", *cases], *cells])


def _cell(block: Block, name: str, case: str, found: dict[tuple[str, str, str], Row]) -> str:
    shown = [found[name, case, figure] for figure in block.figures if (name, case, figure) in found]
    if not shown:
        return ""
    return f"{' / '.join(block.write(row.median) for row in shown)} ±{shown[0].noise:.0%}"


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Cells under one another, the first of each line to the left, the others to the right."""
    widths = [max(map(len, column)) + GAP for column in zip(*lines, strict=True)]
    widths[0] = max(widths[0], NAME_CELLS)
    return "\n".join(
        line[0].ljust(widths[0]) + "".join(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def placements(rows: Sequence[Row]) -> str:
    """Who ran with each end on a core of its own, and in which cases."""
    pinned: dict[str, list[str]] = {}
    for row in rows:
        if row.pinned and row.case not in pinned.setdefault(row.contestant, []):
            pinned[row.contestant].append(row.case)
    told = "; ".join(f"{name} ({', '.join(cases)})" for name, cases in pinned.items())
    return f"each end on a core of its own, since that was better: {told or 'nobody'}"


def _ratios(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{name} {_written(value)} (noise {_written(result['noise'][name])})"
        for name, value in result["ratios"].items()
    )


def _written(value: float | list[float | None] | None) -> str:
    if isinstance(value, list):
        return " / ".join(map(_written, value))
    return "-" if value is None else f"{value:g}"
