"""Reads every row of both workloads through the public services and compares it with what was answered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from faults.chaos.findings import Finding
from faults.chaos.history import Seen, Values, anomalies
from faults.chaos.lists import parse
from faults.chaos.load import Load
from faults.chaos.tables import ACCOUNTS, LISTS, TRANSFERS
from troth import Client, Row, Transaction
from troth.errors import Aborted, OutcomeUnknown, Refused
from troth.words import Outcome

_READS_EACH, _AT_ONCE = 250, 8
_TRIES, _PAUSE_S = 3, 0.5
_READ_TIMEOUT_S = 6.0

Place = tuple[str, str]
"""Participant and key."""


class Check(NamedTuple):
    """One thing that was looked at in the end."""

    text: str
    findings: Sequence[Finding]


class NotRead(Exception):
    """Rows could not be read; the message says why."""


async def rows(client: Client, table: str, places: Iterable[Place]) -> dict[Place, Row]:
    """Every row there, or its absence, as transactions read them. Raises NotRead."""
    batches = [(name, batch) for name, keys in _by_participant(places).items() for batch in _batched(keys)]
    found: dict[Place, Row] = {}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def read(participant: str, keys: Sequence[str]) -> None:
        async with slots:
            for row in await _read(client, participant, table, keys):
                found[participant, str(row.key[0])] = row

    try:
        async with asyncio.TaskGroup() as reads:
            for name, keys in batches:
                reads.create_task(read(name, keys))
    except* NotRead as group:
        raise group.exceptions[0] from None
    return found


def _by_participant(places: Iterable[Place]) -> dict[str, list[str]]:
    by: dict[str, list[str]] = {}
    for participant, key in places:
        by.setdefault(participant, []).append(key)
    return by


def _batched(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _READS_EACH):
        yield keys[start : start + _READS_EACH]


async def _read(client: Client, participant: str, table: str, keys: Sequence[str]) -> Sequence[Row]:
    why: Exception | None = None
    for _ in range(_TRIES):
        transaction = Transaction(timeout_s=_READ_TIMEOUT_S).at(participant)
        for key in keys:
            transaction.read(table, key)
        try:
            return (await client.submit(transaction)).rows
        except (Aborted, OutcomeUnknown, Refused) as error:
            why = error
        await asyncio.sleep(_PAUSE_S)
    raise NotRead(f"{table} at {participant}: {why}")


# The bank.


async def check_transfers(client: Client, load: Load) -> Check:
    """Each transfer's row is at all its participants or at none, as was answered."""
    known = load.known()
    places = [(participant, each.id) for each, _ in known for participant in each.entries()]
    found = await rows(client, TRANSFERS, places)
    findings: list[Finding] = []
    for transfer, outcome in known:
        there = [p for p in transfer.entries() if found[p, transfer.id].present]
        missing = [p for p in transfer.entries() if p not in there]
        if there and missing:
            text = f"{transfer.id} ({outcome.name}) is at {_names(there)} and not at {_names(missing)}"
            findings.append(Finding("torn", text))
        elif missing and outcome is Outcome.COMMITTED:
            findings.append(Finding("lost", f"{transfer.id} is COMMITTED and at none of {_names(missing)}"))
        elif there and outcome is Outcome.ABORTED:
            findings.append(Finding("applied", f"{transfer.id} is ABORTED and at {_names(there)}"))
        for participant in there:
            amount, meant = found[participant, transfer.id]["amount"], transfer.entries()[participant]
            if amount != meant:
                text = f"{transfer.id} at {participant} says {amount!r} and was {meant}"
                findings.append(Finding("changed row", text))
    return Check(f"{len(places):,} rows of transfers, each there exactly when its transfer committed", findings)


async def check_accounts(client: Client, load: Load) -> Check:
    """What is on the accounts is what the committed transfers make it; of those not known, what their rows say."""
    found = await rows(client, ACCOUNTS, load.bank.accounts)
    known = load.known()
    unknown = [each for each, outcome in known if outcome is Outcome.UNKNOWN]
    entries = await rows(client, TRANSFERS, [(p, each.id) for each in unknown for p in each.entries()])
    applied = (each for each in unknown if all(entries[p, each.id].present for p in each.entries()))
    committed = (each for each, outcome in known if outcome is Outcome.COMMITTED)
    wanted = load.bank.balances(itertools.chain(committed, applied))
    findings = []
    for (participant, name), balance in wanted.items():
        row = found[participant, name]
        if not row.present or row["balance"] != balance:
            is_now = row["balance"] if row.present else "gone"
            findings.append(Finding("wrong balance", f"{name} at {participant} is {is_now!r} and should be {balance}"))
    total = sum(int(str(row["balance"])) for row in found.values() if row.present)
    if total != load.bank.total:
        findings.append(Finding("money", f"{total} is in all accounts together, and {load.bank.total} was put in"))
    return Check(f"{len(wanted)} accounts, each with what the committed transfers make it; {total:,} in all", findings)


# The lists.


async def check_lists(client: Client, load: Load) -> Check:
    """What was read and what is there can have come from some serial order."""
    found = await rows(client, LISTS, sorted(load.lists.used))
    final: dict[str, Values] = {}
    findings = []
    for (_, name), row in found.items():
        try:
            final[name] = parse(str(row["items"])) if row.present else ()
        except ValueError:
            findings.append(Finding("foreign value", f"{name} holds {row['items']!r}"))
    history: list[Seen] = list(load.lists.history.values())
    findings += await asyncio.to_thread(anomalies, history, final)
    reads = sum(len(seen.reads) for seen in history)
    text = f"{len(history):,} transactions over {len(final):,} lists with {reads:,} reads: a serial order explains all"
    return Check(text, findings)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
