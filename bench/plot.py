"""Throughput over transactions in flight as a small SVG: a panel for each workload, a line for each contender, and both
axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from bench.figures import Row

_WIDTH, _HEIGHT, _GAP = 720, 300, 70
_LEFT, _RIGHT, _TOP = 80, 130, 40
_COLORS = {"troth": "#1d4ed8", "unary": "#b45309", "bare": "#6b7280", "postgresql": "#047857"}
_COLORS |= {"troth-postgresql": "#7c3aed", "mariadb": "#be123c", "troth-mariadb": "#0e7490"}
_STYLE = "text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#ddd}.spread{stroke-width:1.5;opacity:.5}"


class _Axis:
    """Numbers above 0 to places, by their logarithm, from a whole power of `base` to another."""

    def __init__(self, found: Iterable[float], base: int, first: float, last: float) -> None:
        logs = [math.log(max(each, 1e-9), base) for each in found]
        low, high = math.floor(min(logs) + 1e-9), math.ceil(max(logs) - 1e-9)
        self._low, self._high = low, max(high, low + 1)
        self._base, self._first, self._last = base, first, last

    def place(self, number: float) -> float:
        part = (math.log(max(number, 1e-9), self._base) - self._low) / (self._high - self._low)
        return self._first + part * (self._last - self._first)

    @property
    def ticks(self) -> list[float]:
        return [float(self._base) ** power for power in range(self._low, self._high + 1)]


def svg(rows: Sequence[Row]) -> str:
    """The picture; nothing in it is fetched."""
    workloads = list(dict.fromkeys(row.workload for row in rows))
    height = _TOP + len(workloads) * (_HEIGHT + _GAP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"><style>{_STYLE}</style>']
    parts.append(f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>')
    for index, workload in enumerate(workloads):
        parts += _panel(workload, [row for row in rows if row.workload == workload], _TOP + index * (_HEIGHT + _GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(workload: str, rows: Sequence[Row], top: float) -> Iterator[str]:
    bottom, right = top + _HEIGHT, _WIDTH - _RIGHT
    across = _Axis([row.in_flight for row in rows], 2, _LEFT, right)
    rates = [rate for row in rows for rate in (row.tx_per_s.min, row.tx_per_s.max)]
    up = _Axis(rates, 10, bottom, top)
    yield f'<text x="{_LEFT}" y="{top - 14}" font-weight="600">{escape(workload)}: committed transactions/s</text>'
    for tick in up.ticks:
        y = up.place(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>'
    for level in sorted({row.in_flight for row in rows}):
        x = across.place(level)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{level:,}</text>'
    yield f'<text x="{(_LEFT + right) / 2}" y="{bottom + 36}" text-anchor="middle">transactions in flight</text>'
    for name in dict.fromkeys(row.contender for row in rows):
        yield from _line(name, [row for row in rows if row.contender == name], across, up)


def _line(name: str, rows: Sequence[Row], across: _Axis, up: _Axis) -> Iterator[str]:
    color = _COLORS[name]
    points = [(across.place(row.in_flight), up.place(row.tx_per_s.median), row.tx_per_s) for row in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
    for x, y, rate in points:
        low, high = up.place(rate.min), up.place(rate.max)
        yield f'<line class="spread" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{color}"/>'
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"><title>{rate.median:,.0f}/s</title></circle>'
    x, y, _ = points[-1]
    yield f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" style="fill:{color}">{escape(name)}</text>'
