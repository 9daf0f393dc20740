"""`troth submit`: one transaction in text form, or a file of them as JSON Lines."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from troth.cli import render
from troth.cli.common import (
    EXIT_NOT_COMMITTED,
    EXIT_OTHER,
    EXIT_UNKNOWN,
    complain,
    connected,
    coordinator_option,
    json_option,
    run,
    say,
    say_json,
)
from troth.cli.create import KeyColumns, create_missing
from troth.cli.jsonlines import read_transactions
from troth.cli.text import transaction_of
from troth.client.results import Result
from troth.errors import ServerError
from troth.operations import Transaction
from troth.process.durations import Duration
from troth.words import Outcome

_LAST_ANSWERS_S = 1.0
"""How long answers that are under way are waited for after Ctrl-C."""


@click.command("submit")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False)
@click.option("-o", "--operation", "texts", multiple=True, metavar="OPERATION", help="An operation; may be repeated.")
@click.option("--id", help="The transaction's id. Submitting again with it gives the same outcome.")
@click.option("--timeout", type=Duration(), help="Until a transaction is given up, for those that say nothing of it.")
@click.option("--wait", type=click.Choice(["applied"]), help="Answer only when every participant has applied.")
@click.option("--in-flight", type=click.IntRange(1), default=256, show_default=True, help="Transactions open at once.")
@click.option("--ask-again", type=Duration(), help="Submit what is UNKNOWN again, with its id, for so long.")
@click.option("--create", is_flag=True, help="Make tables that do not exist from the first row inserted.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="TABLE=COLUMN[,COLUMN...]",
    help="With --create: the primary-key columns of a table; by default one, named id.",
)
@coordinator_option
@json_option
def command(
    *,
    file: str | None,
    texts: tuple[str, ...],
    id: str | None,
    timeout: float | None,
    wait: str | None,
    in_flight: int,
    ask_again: float | None,
    create: bool,
    keys: tuple[str, ...],
    coordinator: str,
    as_json: bool,
) -> None:
    """Run one transaction (-o), or a FILE of them (JSON Lines; - is standard input).

    All operations of one transaction are applied, at all their participants, or none is. They run in the order given:

    \b
      PARTICIPANT: insert TABLE/KEY column=text column:=json
      PARTICIPANT: update|upsert TABLE/KEY column=text column:=json
      PARTICIPANT: delete TABLE/KEY
      PARTICIPANT: add TABLE/KEY column NUMBER min=NUMBER max=NUMBER
      PARTICIPANT: check TABLE/KEY column=v (or column>=v, column<=v, exists, absent)
      PARTICIPANT: read TABLE/KEY
      PARTICIPANT: sql 'STATEMENT WITH %s' =text :=json rows=COUNT read-only

    A composite key is written stock/berlin/widget, a slash inside as %2F. Keys and values become the column's declared
    type. A line of FILE is one transaction; id and timeout_s are optional:

    \b
      {"id": "order-17", "timeout_s": 5, "operations": [
        {"participant": "p1", "add": {"table": "accounts", "key": "alice", "column": "balance", "by": -100, "min": 0}}]}

    (in one line). Everything is read and checked before anything is sent. The same id twice in a file is one
    transaction. Of a file, what did not commit and what was read is printed; with --json, every result.

    With --create, a table's key columns are named by --key, or `id`; the types are those of the first row, so write
    numbers as column:=5. A key column that is repeated among the values has that value's type.

    \b
    Examples:
      troth submit -o 'p1: add accounts/alice balance -100 min=0' -o 'p2: add accounts/bob balance 100'
      troth submit --id order-17 --timeout 5s --wait applied -o 'p3: insert orders/17 item=widget pieces:=2'
      troth submit --create --key accounts=owner -o 'p1: insert accounts/alice balance:=100'
      troth submit orders.jsonl --in-flight 512 --json > outcomes.jsonl
      troth submit orders.jsonl --ask-again 30s

    \b
    Exit codes: 0 all committed; 3 some aborted or refused; 4 some unknown; 2 bad input (nothing was sent);
    1 anything else.
    """
    if bool(texts) == (file is not None):
        raise click.UsageError("give operations with -o, or a FILE, and not both")
    if file is not None and id is not None:
        raise click.UsageError("--id is for operations given with -o; lines of a file have their own")
    if keys and not create:
        raise click.UsageError("--key is for --create")
    options = {"in_flight": in_flight, "wait_applied": wait is not None, "ask_again_s": ask_again or 0.0}
    run(_submit(file, texts, id, timeout, keys if create else None, coordinator, as_json, options))


async def _submit(
    file: str | None,
    texts: Sequence[str],
    id: str | None,
    timeout_s: float | None,
    keys: Sequence[str] | None,
    coordinator: str,
    as_json: bool,
    options: dict[str, int | float | bool],
) -> int:
    if file is not None:
        with click.open_file(file, "rb") as lines:
            transactions = read_transactions(lines, file, timeout_s)
    else:
        transactions = [transaction_of(texts, id, timeout_s)]
    for transaction in transactions:
        transaction.to_request()
    key_columns = None if keys is None else KeyColumns.parse(keys)
    run = _Run(transactions, _printer(as_json, everything=file is None))
    async with connected(coordinator) as client:
        if key_columns is not None:
            for name in await create_missing(client, transactions, key_columns):
                click.echo(f"created table {name}", err=True)
        run.started_at = time.monotonic()
        with _interruptible(run.interrupt):
            await run.follow(client.submit_many(run.source(), **options), file is not None)  # type: ignore[arg-type]
    if file is not None:
        click.echo(run.summary(), err=True)
    return run.exit_code()


def _printer(as_json: bool, everything: bool) -> Callable[[Result], None]:
    def show(result: Result) -> None:
        if as_json:
            say_json(render.result_json(result))
        elif everything or result.rows or result.outcome is not Outcome.COMMITTED:
            say(render.result_text(result))

    return show


class _interruptible:
    """Ctrl-C calls `stop` instead of breaking off in the middle."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._stop)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


class _Run:
    """What became of the transactions of one command."""

    def __init__(self, transactions: Sequence[Transaction], show: Callable[[Result], None]) -> None:
        self._transactions = transactions
        self._show = show
        self._sent_at: dict[str, float] = {}
        """Those without an answer, by id."""
        self._taken = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._codes: dict[Outcome, Counter[str]] = {Outcome.ABORTED: Counter(), Outcome.REFUSED: Counter()}
        self._latencies_s: list[float] = []
        self._stopping = False
        self._follower: asyncio.Task[None] | None = None
        self.started_at = time.monotonic()

    def source(self) -> Iterator[Transaction]:
        """The transactions, until it is interrupted."""
        for transaction in self._transactions:
            if self._stopping:
                return
            self._taken += 1
            self._sent_at[transaction.id] = time.monotonic()
            yield transaction

    def interrupt(self) -> None:
        """Sends nothing more, and gives answers that are under way a moment; the second time, none."""
        assert self._follower is not None
        pause_s = 0.0 if self._stopping else _LAST_ANSWERS_S
        self._stopping = True
        asyncio.get_running_loop().call_later(pause_s, self._follower.cancel)

    async def follow(self, results: AsyncIterator[Result], with_progress: bool) -> None:
        """Takes every result; what is open after an interruption is UNKNOWN."""
        self._follower = asyncio.create_task(self._take_all(results, with_progress))
        try:
            await self._follower
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        except ServerError as error:
            complain(error)
        for id in list(self._sent_at):
            self._take(Result.unknown(id, "interrupted before its answer"))

    async def _take_all(self, results: AsyncIterator[Result], with_progress: bool) -> None:
        with _progress(with_progress) as progress:
            bar = progress.add_task("submitting", total=len(self._transactions))
            async for result in results:
                self._take(result)
                progress.advance(bar)

    def _take(self, result: Result) -> None:
        now = time.monotonic()
        self._latencies_s.append(now - self._sent_at.pop(result.id, now))
        self._outcomes[result.outcome] += 1
        if result.outcome in self._codes:
            self._codes[result.outcome][result.code or "no reason"] += 1
        self._show(result)

    @property
    def _unsent(self) -> int:
        return len(self._transactions) - self._taken

    def exit_code(self) -> int:
        """The worst thing that happened."""
        if self._outcomes[Outcome.UNKNOWN]:
            return EXIT_UNKNOWN
        if self._unsent:
            return EXIT_OTHER
        return EXIT_NOT_COMMITTED if self._outcomes.total() > self._outcomes[Outcome.COMMITTED] else 0

    def summary(self) -> str:
        """Counts, reasons, throughput of what committed, latency."""
        seconds = time.monotonic() - self.started_at
        counts = [f"{self._outcomes[outcome]} {self._named(outcome)}" for outcome in Outcome]
        if self._unsent:
            counts.append(f"{self._unsent} not sent")
        rate = self._outcomes[Outcome.COMMITTED] / seconds if seconds else 0.0
        return f"{', '.join(counts)}; {seconds:.2f} s, {rate:.0f} committed/s{self._latency()}"

    def _named(self, outcome: Outcome) -> str:
        codes = self._codes.get(outcome)
        listed = ", ".join(f"{code} {count}" for code, count in codes.most_common()) if codes else ""
        return outcome.name.lower() + (f" ({listed})" if listed else "")

    def _latency(self) -> str:
        times = sorted(self._latencies_s)
        if not times:
            return ""
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        return f"; latency {p50 * 1000:.1f} ms median, {p99 * 1000:.1f} ms p99, {times[-1] * 1000:.1f} ms max"


def _progress(wanted: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (wanted and console.is_terminal),
        redirect_stdout=sys.stdout.isatty(),  # What goes to a file must not come to the terminal instead.
    )
