"""The report as one page for a browser: everything is in the file, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from faults.chaos.report import EXIT_CLEAN, EXIT_LOST, FINDINGS_SHOWN, SAME_SEED, VERDICTS, Report
from faults.chaos.run import Applied
from faults.chaos.schedule import DISKS, LINKS
from faults.chaos.screen import rates
from faults.chaos.watch import LONG_S, Sample

_WIDTH, _LEFT, _RIGHT = 1120, 190, 16
_CHART, _ROW, _GAP = 150, 18, 26
_RATE_OVER_S = 3.0
_TICKS = 10

_STYLE = Path(__file__).with_name("page.css").read_text("utf-8")


def html(report: Report) -> str:
    """The page."""
    parts = [
        f"<h1>troth chaos, seed {report.plan.seed}</h1>",
        f"<p class='sub'>{_subtitle(report)}</p>",
        _verdict(report),
        _tiles(report),
        "<h2>Timeline</h2>",
        f"<div class='card'>{_timeline(report)}</div>",
        _key(),
        *_problems(report),
        "<div class='two'><div><h2>Checks</h2>",
        _table((), [(_mark(not check.findings), escape(check.text)) for check in report.checks]),
        f"</div><div><h2>Faults</h2>{_faults(report)}</div></div>",
        f"<h2>Every fault</h2>{_every_fault(report.applied)}",
        f"<p class='sub'>{SAME_SEED}</p>",
    ]
    head = f"<meta charset='utf-8'><title>troth chaos, seed {report.plan.seed}</title><style>{_STYLE}</style>"
    return f"<!doctype html>\n<html lang='en'><head>{head}</head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _subtitle(report: Report) -> str:
    plan = report.plan
    people = f"{len(report.participants)} participants, {plan.in_flight} transactions in flight"
    return f"{people}, {report.loaded_s:.0f} s of load, a fault every {plan.every_s:g} s on average"


def _verdict(report: Report) -> str:
    tones = {EXIT_CLEAN: "--good", EXIT_LOST: "--bad"}
    tone = tones.get(report.exit_code, "--warn")
    said = VERDICTS[report.exit_code]
    return f"<div class='verdict' style='--tone: var({tone})'>{escape(said[0].upper() + said[1:])}</div>"


def _tiles(report: Report) -> str:
    settled = "never" if report.settled_after_s is None else f"{report.settled_after_s:.1f} s"
    tiles = [
        (f"{report.outcomes['COMMITTED']:,}", "committed at once"),
        (f"{report.committed_per_s:,.0f}/s", "committed, on average"),
        (f"{report.outcomes['ABORTED']:,}", "aborted"),
        (f"{report.outcomes['UNKNOWN']:,}", f"unknown at first, {report.in_the_end.get('UNKNOWN', 0):,} in the end"),
        (f"{sum(report.hits().values()):,}", "faults that hit"),
        (f"{report.longest_in_doubt_s:.1f} s", "longest in doubt"),
        (settled, "until all had ended"),
    ]
    return (
        "<div class='tiles'>"
        + "".join(f"<div class='tile'><b>{a}</b><span>{b}</span></div>" for a, b in tiles)
        + "</div>"
    )


def _problems(report: Report) -> list[str]:
    lists = [("Found", [f"{each.kind}: {each.text}" for each in report.findings]), ("Left", list(report.left))]
    parts = []
    for heading, found in lists:
        if found:
            more = [f"and {len(found) - FINDINGS_SHOWN:,} more"] if len(found) > FINDINGS_SHOWN else []
            rows = [(escape(text),) for text in [*found[:FINDINGS_SHOWN], *more]]
            parts.append(f"<h2 class='bad'>{heading} ({len(found):,})</h2>{_table((), rows)}")
    return parts


def _faults(report: Report) -> str:
    rows = [(str(count), escape(kind.value)) for kind, count in report.hits().items()]
    rows += [
        ("-", f"{escape(kind.value)} <span class='soft'>not applied: {escape(why)}</span>")
        for kind, why in report.not_applied.items()
    ]
    return _table((), rows, number=True)


def _every_fault(applied: Sequence[Applied]) -> str:
    rows = [
        (f"{each.began_s:.1f}", f"{each.ended_s - each.began_s:.1f}", escape(str(each.fault)) + _missed(each))
        for each in applied
    ]
    return _table(("at s", "for s", "fault"), rows, number=True)


def _missed(each: Applied) -> str:
    return "" if each.hit else " <span class='soft'>hit nothing: it was down already</span>"


def _mark(good: bool) -> str:
    return "<span class='ok'>ok</span>" if good else "<span class='bad'>FAILED</span>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, number: bool = False) -> str:
    """Cells are HTML. With `number` all but the last column are numbers."""
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"] if head else []
    for row in rows:
        cells = [f"<td{' class=n' if number and at < len(row) - 1 else ''}>{cell}</td>" for at, cell in enumerate(row)]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "<div class='card'><table>" + "".join(lines) + "</table></div>"


def _key() -> str:
    names = [
        ("--rate", "committed/s"),
        ("--doubt", "in doubt"),
        ("--long", f"in doubt for more than {LONG_S:g} s"),
        ("--signal", "kill, stop"),
        ("--link", "link"),
        ("--disk", "disk"),
        ("--away", "does not answer"),
    ]
    return (
        "<p class='key sub'>" + "".join(f"<i style='--c: var({colour})'></i>{name}" for colour, name in names) + "</p>"
    )


# The timeline.


def _timeline(report: Report) -> str:
    """Throughput, what is in doubt, and below them a row for each process and link that met a fault."""
    samples = report.samples
    end_s = max([report.loaded_s, *(sample.at_s for sample in samples), 1.0])

    def x(at_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at_s / end_s

    names = _rows(report)
    first_row = 2 * (_CHART + _GAP) + 8
    height = first_row + len(names) * _ROW + 24
    parts = [
        *_grid(x, end_s, height),
        *_rate_chart(samples, x, 12),
        *_doubt_chart(samples, x, 12 + _CHART + _GAP),
        *(_row(report, name, x, first_row + at * _ROW) for at, name in enumerate(names)),
        f"<line class='grid' x1='{x(report.loaded_s):.1f}' x2='{x(report.loaded_s):.1f}' y1='4' y2='{height - 20}'"
        " stroke-dasharray='4 3'/>",
    ]
    return f"<svg viewBox='0 0 {_WIDTH} {height}' role='img' aria-label='timeline'>{''.join(parts)}</svg>"


def _rows(report: Report) -> list[str]:
    """Processes first, as far as they met a fault or were away, then links."""
    hit = {name for each in report.applied for name in each.fault.targets}
    hit |= {name for sample in report.samples for name in sample.away}
    return sorted(hit, key=lambda name: (">" in name, name))


def _grid(x: Callable[[float], float], end_s: float, height: int) -> list[str]:
    step = next(
        step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600) if end_s / step <= _TICKS or step == 3600
    )
    marks = [step * n for n in range(int(end_s // step) + 1)]
    return [
        f"<line class='grid' x1='{x(at):.1f}' x2='{x(at):.1f}' y1='4' y2='{height - 20}'/>"
        f"<text x='{x(at):.1f}' y='{height - 6}' text-anchor='middle'>{at} s</text>"
        for at in marks
    ]


def _rate_chart(samples: Sequence[Sample], x: Callable[[float], float], top: float) -> list[str]:
    values = rates(list(samples), _RATE_OVER_S)
    return _chart("committed/s", "rate", [s.at_s for s in samples], values, x, top, filled=True)


def _doubt_chart(samples: Sequence[Sample], x: Callable[[float], float], top: float) -> list[str]:
    at = [sample.at_s for sample in samples]
    short, long = [float(s.in_doubt) for s in samples], [float(s.in_doubt_long) for s in samples]
    shown = [f"<path class='long' d='{_path(at, long, max(short), x, top, filled=True)}'/>"] if any(long) else []
    return [*_chart("in doubt", "doubt", at, short, x, top), *shown]


def _chart(
    name: str,
    kind: str,
    at: Sequence[float],
    values: Sequence[float],
    x: Callable[[float], float],
    top: float,
    *,
    filled: bool = False,
) -> list[str]:
    most = max([*values, 1.0])
    return [
        f"<text class='label' x='0' y='{top + 12}'>{name}</text>",
        f"<text x='{_LEFT - 8}' y='{top + 10}' text-anchor='end'>{most:,.0f}</text>",
        f"<text x='{_LEFT - 8}' y='{top + _CHART}' text-anchor='end'>0</text>",
        f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{top + _CHART}' y2='{top + _CHART}'/>",
        f"<path class='{kind}' d='{_path(at, values, most, x, top, filled=filled)}'/>",
    ]


def _path(
    at: Sequence[float], values: Sequence[float], most: float, x: Callable[[float], float], top: float, *, filled: bool
) -> str:
    if not at:
        return ""
    bottom = top + _CHART
    points = [f"{x(s):.1f},{bottom - _CHART * value / most:.1f}" for s, value in zip(at, values, strict=True)]
    if not filled:
        return "M" + " L".join(points)
    return f"M{x(at[0]):.1f},{bottom} L" + " L".join(points) + f" L{x(at[-1]):.1f},{bottom} Z"


def _row(report: Report, name: str, x: Callable[[float], float], top: float) -> str:
    """When it did not answer, and its faults; each tells what it was when it is pointed at."""
    parts = [f"<text class='label' x='0' y='{top + 12}'>{escape(name)}</text>"]
    samples = report.samples
    for before, sample in pairwise(samples):
        if name in sample.away:
            wide = x(sample.at_s) - x(before.at_s)
            parts.append(
                f"<rect class='away' x='{x(before.at_s):.1f}' y='{top + 2}' width='{wide:.1f}' height='{_ROW - 4}'/>"
            )
    for each in report.applied:
        if name in each.fault.targets and each.hit:
            kind = "link" if each.fault.kind in LINKS else "disk" if each.fault.kind in DISKS else "signal"
            wide = max(2.5, x(each.ended_s) - x(each.began_s))
            parts.append(
                f"<rect class='{kind}' rx='2' x='{x(each.began_s):.1f}' y='{top + 4}' width='{wide:.1f}'"
                f" height='{_ROW - 8}'><title>{each.began_s:.1f} s: {escape(str(each.fault))}</title></rect>"
            )
    return "".join(parts)
