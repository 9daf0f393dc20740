"""A shop keeps its customers' money at p1, its goods at p2 and its orders at p3. All of that runs here: thousands of
orders go through while a participant and the coordinator are killed with kill -9, and every row is checked at the end.
Where PostgreSQL or MariaDB are installed, a second shop keeps its tables there, and those are killed too.

Exit codes: 0 everything held; 1 something did not; 2 it could not be run; 130 stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import shop
from mixed import mixed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text
from stage import BACK_WITHIN_S, Checks, Failed, Up, check_settled, euros, heading, out, run_troth, say, show_table

import troth
from troth.cli import cluster
from troth.cli.jsonlines import read_transactions
from troth.cli.up import only_one
from troth.client.results import Result
from troth.reasons import code_name
from troth.words import Outcome

DATA = Path(__file__).resolve().parent / "demo-data"
PARTICIPANTS = ("p1", "p2", "p3")
MARK = "made-by-scripts-demo"
"""The file that says whose a folder is: it holds a sentence with the folder's own path, so that a copy is nobody's."""
TRANSACTIONS, MISTAKES = "transactions.jsonl", "mistakes.jsonl"
MIXED = "mixed"
MADE = re.compile(
    rf"{MARK}|{TRANSACTIONS}|{MISTAKES}|{MIXED}|({MIXED}/)?(cluster\.json(\.new)?|up\.pid|log"
    r"|log/(coordinator|p[123])\.log|(coordinator|p[123])\.db(-wal|-shm|-journal|\.lock)?)"
)
"""All that a demo, and a `troth up` on its folder, leaves there."""
KILLS = (("p2", 0.25), ("coordinator", 0.6))
"""Who is killed, and after which part of the transactions is answered."""


# The work.


class Work:
    """All transactions, and what was answered for each."""

    def __init__(self, lines: Sequence[shop.Line], folder: Path) -> None:
        self.lines = {line["id"]: line for line in lines}
        self.mistakes = {line["id"]: line for line in shop.mistakes(lines)}
        self.file = _write(folder / TRANSACTIONS, self.lines.values())
        self.mistakes_file = _write(folder / MISTAKES, self.mistakes.values())
        self.transactions = _read(self.file)
        self._wrong = {transaction.id: transaction for transaction in _read(self.mistakes_file)}
        self._due: deque[troth.Transaction] = deque()
        self.first: dict[str, Result] = {}
        """The first answer for each id; UNKNOWN where a connection was lost."""
        self.final: dict[str, Result] = {}
        """The answer after asking again."""
        self.wrong: dict[str, Result] = {}
        """What the second use of an id for other content got."""

    async def run(self, client: troth.Client, in_flight: int) -> AsyncIterator[None]:
        """Submits everything once. An id is used for other content once its own outcome is known."""
        async for result in client.submit_many(self._source(), in_flight=in_flight):
            if result.id in self.first:
                self.wrong[result.id] = result
                continue
            self.first[result.id] = result
            if result.id in self._wrong and result.outcome is not Outcome.UNKNOWN:
                self._due.append(self._wrong[result.id])
            yield

    def _source(self) -> Iterator[troth.Transaction]:
        for transaction in self.transactions:
            while self._due:
                yield self._due.popleft()
            yield transaction

    async def ask_again(self, client: troth.Client, in_flight: int) -> None:
        """Submits everything again, with the same ids."""
        async for result in client.submit_many(self.transactions, in_flight=in_flight, ask_again_s=BACK_WITHIN_S):
            self.final[result.id] = result
        async for result in client.submit_many(self._wrong.values(), in_flight=in_flight, ask_again_s=BACK_WITHIN_S):
            self.wrong[result.id] = result

    def committed(self) -> list[shop.Line]:
        return [self.lines[id] for id, result in self.final.items() if result.outcome is Outcome.COMMITTED]

    def one_in_between(self) -> str:
        """A committed transaction whose first answer was UNKNOWN; when there is none, any that committed."""
        unknown = (id for id, result in self.first.items() if result.outcome is Outcome.UNKNOWN)
        candidates = [self.final[id] for id in unknown] or list(self.final.values())
        committed = [result for result in candidates if result.outcome is Outcome.COMMITTED]
        return max(committed, key=lambda result: (result.attempts, result.id)).id


def _write(path: Path, lines: Iterable[shop.Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def _read(path: Path) -> list[troth.Transaction]:
    with path.open("rb") as file:
        return read_transactions(file, path.name)


def reason_of(result: Result) -> str:
    """An outcome with its reason, as in `ABORTED  below_min accounts.balance at p1`."""
    reason = result.reason
    if reason is None or result.outcome in (Outcome.COMMITTED, Outcome.UNKNOWN):
        return result.outcome.name
    place = f" {reason.table}.{reason.column}" if reason.column else f" {reason.table}" if reason.table else ""
    at = f" at {reason.participant}" if reason.participant else ""
    return f"{result.outcome.name}  {code_name(reason.code)}{place}{at}"


def show_outcomes(work: Work) -> None:
    first = Counter(map(reason_of, work.first.values()))
    final = Counter(map(reason_of, work.final.values()))
    wrong = Counter(map(reason_of, work.wrong.values()))
    order = {outcome.name: index for index, outcome in enumerate(Outcome)}
    names = sorted({*first, *final}, key=lambda name: (order[name.split()[0]], -final[name]))
    rows = [[name, f"{first[name]:,}", f"{final[name]:,}"] for name in names]
    rows.append(["all transactions", f"{first.total():,}", f"{final.total():,}"])
    show_table(["outcome and reason", "first answer", "asked again"], rows)
    out.print()
    show_table(["the id of another transaction", "count"], [[name, f"{count:,}"] for name, count in wrong.items()])


# The checks.


def check_answers(work: Work, checks: Checks) -> None:
    known = [result for result in work.first.values() if result.outcome is not Outcome.UNKNOWN]
    kept = sum(work.final[result.id].outcome is result.outcome for result in known)
    checks.that(kept == len(known), f"{kept:,} of {len(known):,} answers given before are the same when asked again")
    unknown = sum(result.outcome is Outcome.UNKNOWN for result in work.final.values())
    checks.that(not unknown and len(work.final) == len(work.lines), f"{unknown} outcomes are unknown in the end")
    lacking = Counter(
        result.reason.table for result in work.final.values() if result.reason and result.code == "below_min"
    )
    text = f"{lacking['accounts']} were aborted for lack of money, {lacking['stock']} for lack of stock"
    checks.that(lacking["accounts"] > 0 and lacking["stock"] > 0, text)
    taken = sum(result.outcome is Outcome.REFUSED and result.code == "id_taken" for result in work.wrong.values())
    everything = taken == len(work.mistakes)
    checks.that(everything and taken > 0, f"{taken} of {len(work.mistakes)} second uses of an id were refused")


def check_rows(work: Work, opened: Sequence[shop.Line], folder: Path, checks: Checks) -> None:
    files = {name: folder / f"{name}.db" for name in PARTICIPANTS}
    committed = [*opened, *work.committed()]
    start, wanted, rows = shop.expected(opened), shop.expected(committed), shop.found(files)
    before, after = shop.Totals.of(start), shop.Totals.of(rows)
    show_table(
        ["totals", "at the start", "now"],
        [
            ["money on all accounts (p1, p3)", euros(before.money), euros(after.money)],
            ["pieces in stock (p2) and on orders (p3)", f"{before.goods:,}", f"{after.goods:,}"],
            ["taken by the shop (p3)", euros(before.till), euros(after.till)],
            ["price of all orders (p3)", euros(before.sold), euros(after.sold)],
            ["orders (p3)", f"{before.orders:,}", f"{after.orders:,}"],
        ],
    )
    out.print()
    checks.that(before.money == after.money, "no cent was made or lost")
    checks.that(before.goods == after.goods, "no piece was made or lost")
    checks.that(after.till == after.sold, "the shop took exactly the price of its orders")
    wrong = [row for row in wanted.keys() | rows.keys() if wanted.get(row) != rows.get(row)]
    checks.that(not wrong, f"{len(rows):,} rows are what the committed transactions make them, {len(wrong)} are not")
    applied, due = shop.applied(files), shop.branches(committed)
    text = ", ".join(f"{name} {applied[name]:,}" for name in PARTICIPANTS)
    checks.that(applied == due, f"each committed branch was applied exactly once: {text}")


# The story.


async def demo(folder: Path, count: int, seed: int, in_flight: int, port: int, keep: bool, shown: str) -> bool:
    """Whether everything held."""
    checks = Checks()
    opened = shop.opening(DATA / "opening.jsonl")
    heading(1, "A coordinator and three participants, each a process with one SQLite file")
    say(f"$ troth up --participants 3 --data {shown} --schema scripts/demo-data/shop.sql --history", "bold cyan")
    participants = ["--participants", str(len(PARTICIPANTS)), "--schema", str(DATA / "shop.sql"), "--history"]
    async with Up.running(folder, port, participants) as up:
        show_table(
            ["process", "pid", "address", "file"],
            [[m.name, str(m.pid), m.address, f"{shown}/{Path(m.data).name}"] for m in cluster.read(folder)],
        )
        heading(2, "The shop opens: accounts at p1, stock at p2, customers and orders at p3")
        file = DATA / "opening.jsonl"
        loaded, _ = await run_troth(up, "submit", str(file), shown=["submit", "scripts/demo-data/opening.jsonl"])
        checks.that(loaded == 0, f"{len(opened)} transactions loaded from a file")
        if loaded:
            return False
        work = Work(shop.transactions(opened, count, seed), folder)
        async with troth.connect(up.coordinator, wait_s=BACK_WITHIN_S) as client:
            await _main_part(client, up, work, in_flight, shown, checks)
            heading(5, "What is on disk")
            await check_settled(client, up, checks)
        check_rows(work, opened, folder, checks)
        heading(6, "What is left in doubt")
        checks.that(await run_troth(up, "in-doubt") == (0, "nothing is in doubt"), "no participant is in doubt")
        checks.that(await run_troth(up, "unresolved") == (0, "nothing is unresolved"), "the coordinator owes nothing")
        checks.that((await run_troth(up, "status"))[0] == 0, "all processes serve")
        await mixed(7, folder / MIXED, checks)
        out.print()
        example = work.one_in_between()
        await run_troth(up, "show", example)
        show_verdict(checks)
        show_further(up.coordinator, shown, example, keep)
        if keep:
            with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how this ends
                await up.ended()
    return not checks.failed


async def _main_part(client: troth.Client, up: Up, work: Work, in_flight: int, shown: str, checks: Checks) -> None:
    heading(3, f"{len(work.lines):,} transactions, {in_flight} at once, and two kill -9 meanwhile")
    say(f"from {shown}/{TRANSACTIONS}; one of its lines is one transaction:")
    say(json.dumps(next(iter(work.lines.values()))), "dim")
    killed = {name: up.pid(name) for name, _ in KILLS}
    began = time.monotonic()
    await _run_with_kills(client, up, work, in_flight)
    took = time.monotonic() - began
    unknown = sum(result.outcome is Outcome.UNKNOWN for result in work.first.values())
    say(f"{len(work.first):,} answers in {took:.1f} s; {unknown} of them UNKNOWN, for the coordinator died meanwhile")
    checks.that(all(up.pid(name) != pid for name, pid in killed.items()), "`troth up` restarted what was killed")
    heading(4, "The same file again, with the same ids: what is known stays, what is not known becomes known")
    await work.ask_again(client, in_flight)
    show_outcomes(work)
    out.print()
    check_answers(work, checks)


async def _run_with_kills(client: troth.Client, up: Up, work: Work, in_flight: int) -> None:
    columns = (TextColumn("   answered"), BarColumn(), MofNCompleteColumn())
    kills = deque((name, round(part * len(work.lines))) for name, part in KILLS)
    async with asyncio.TaskGroup() as killing:
        with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
            bar = progress.add_task("", total=len(work.lines))
            async for _ in work.run(client, in_flight):
                progress.advance(bar)
                if kills and len(work.first) >= kills[0][1]:
                    killing.create_task(up.kill_and_see_it_back(kills.popleft()[0]))


def show_verdict(checks: Checks) -> None:
    out.print()
    if checks.failed:
        out.print(Text(f"   {len(checks.failed)} checks FAILED: {'; '.join(checks.failed)}", "bold red"))
    else:
        out.print(Text("   Everything held: each transaction happened everywhere or nowhere.", "bold green"))


def show_further(coordinator: str, shown: str, id: str, keep: bool) -> None:
    heading(8, "To look around" + (" (in another terminal; Ctrl-C here ends the processes)" if keep else ""))
    commands = []
    if not keep:
        commands.append(f".venv/bin/troth verify {shown}             # every file against every other, and the rows")
        commands.append(f".venv/bin/troth up --data {shown}          # the same files again; Ctrl-C ends it")
    commands += [
        f"export TROTH_COORDINATOR={coordinator}" + ("" if keep else "   # in a second terminal"),
        ".venv/bin/troth status",
        f".venv/bin/troth get {id}",
        ".venv/bin/troth read p1 accounts/alice",
        ".venv/bin/troth read p2 stock/berlin/lamp",
        ".venv/bin/troth submit -o 'p1: add accounts/alice balance -500' -o 'p3: add accounts/shop balance 500'",
        f"sqlite3 {shown}/p3.db 'SELECT * FROM orders ORDER BY number DESC LIMIT 5'",
        ".venv/bin/troth --help",
    ]
    for command in commands:
        say(command, "cyan")


def fresh(folder: Path) -> Path:
    """Makes the folder anew. Only what a demo surely made there itself is removed, and only when nothing runs on it."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise click.ClickException(f"{folder} is no folder; choose another with --data")
    if folder.exists() and any(folder.iterdir()):
        if not _is_ours(folder):
            raise click.ClickException(f"{folder} is not empty and not of an earlier demo; choose another with --data")
        found = sorted(set(folder.rglob("*")) - {folder / MARK}, reverse=True)  # what is in a folder before the folder
        if foreign := [path for path in found if not MADE.fullmatch(str(path.relative_to(folder)))]:
            raise click.ClickException(f"{foreign[-1]} is not of a demo: move it away, or choose another with --data")
        with only_one(folder):
            for path in found:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / MIXED).mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(_mark(folder), "utf-8")
    return folder


def _mark(folder: Path) -> str:
    return f"scripts/demo made {folder.resolve()}, and removes what is in it when it is run there again.\n"


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / MARK).read_text("utf-8") == _mark(folder)
    except (OSError, ValueError):
        return False


@click.command(help=__doc__)
@click.option(
    "--data", type=click.Path(path_type=Path), help="The folder to run in. [default: demo-run in the checkout]"
)
@click.option("--transactions", "count", type=click.IntRange(4000), default=6000, show_default=True, help="How many.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same transactions.")
@click.option("--in-flight", type=click.IntRange(1), default=256, show_default=True, help="Transactions open at once.")
@click.option("--port", default=0, show_default=True, help="The coordinator's; 0 takes free ones.")
@click.option("--keep", is_flag=True, help="Leave the processes running at the end, until Ctrl-C.")
@click.option("--from", "called_from", type=click.Path(path_type=Path), default=Path(), hidden=True)
def main(*, data: Path | None, count: int, seed: int, in_flight: int, port: int, keep: bool, called_from: Path) -> None:
    folder = fresh(Path("demo-run").absolute() if data is None else (called_from / data).absolute())
    shown = os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
    out.print(Text(" ".join((__doc__ or "").split("\n\n")[0].split())), soft_wrap=not out.is_terminal)
    try:
        code = asyncio.run(_stoppable(demo(folder, count, seed, in_flight, port, keep, shown)))
    except* (Failed, troth.TrothError) as group:
        code = 1
        for error in group.exceptions:
            out.print(Text(f"\nfailed: {error}", "bold red"))
    sys.exit(code)


async def _stoppable(story: Coroutine[Any, Any, bool]) -> int:
    """The exit code. SIGINT and SIGTERM end the story where it is; leaving it stops the processes."""
    task = asyncio.create_task(story)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return 0 if await task else 1
    except asyncio.CancelledError:
        out.print("\nstopped; nothing is left running")
        return 130


if __name__ == "__main__":
    main()
