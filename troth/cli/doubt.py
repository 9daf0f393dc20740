"""`troth in-doubt`, `troth resolve`, `troth unresolved`, `troth clear`: what cannot end by itself (rule 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import click

from troth.cli import render
from troth.cli.common import (
    EXIT_OTHER,
    WAIT_S,
    cluster_option,
    complain,
    connected,
    coordinator_option,
    json_option,
    places_by,
    places_in,
    run,
    say,
    say_json,
    say_table,
    soon,
)
from troth.client import Client, connect
from troth.client.participants import ParticipantClient, connect_participant
from troth.errors import BadInput, Contradiction, ServerError, Unreachable
from troth.process.addresses import AddressType
from troth.v1 import coordinator_pb2, participant_pb2
from troth.words import Answer, AttemptId, Outcome

_LISTED_MAX = 10_000


class _Branch(NamedTuple):
    """A branch in doubt and where it is."""

    participant: str
    branch: participant_pb2.InDoubt

    @property
    def attempt(self) -> AttemptId:
        return AttemptId(self.branch.attempt.log, self.branch.attempt.number)


@asynccontextmanager
async def _if_there(address: str) -> AsyncIterator[Client | None]:
    """A client of the coordinator, None when it is not there: what follows works without it, and says less."""
    opening = connect(address, wait_s=WAIT_S)
    try:
        client = await opening.__aenter__()
    except Unreachable as error:
        complain(f"the coordinator cannot be asked: {error}")
        yield None
        return
    try:
        yield client
    finally:
        await opening.__aexit__(None, None, None)


async def _places(client: Client | None, folder: Path | None, addresses: Sequence[str]) -> dict[str, str]:
    """The participants' addresses by name (by address for those given so). Raises BadInput when nobody can say."""
    if addresses:
        return {address: address for address in addresses}
    if folder is not None:
        return places_in(folder).participants
    if client is not None:
        return (await places_by(client)).participants
    raise BadInput(
        "where are the participants? give --cluster DIR or --participant-address, as the coordinator is away"
    )


def _coordinator_of(coordinator: str, folder: Path | None) -> str:
    """`cluster.json` wins over the default, for its processes are meant."""
    return coordinator if folder is None else places_in(folder).coordinator


# In doubt.


@click.command("in-doubt")
@coordinator_option
@cluster_option
@click.option(
    "--participant-address",
    "addresses",
    type=AddressType(),
    multiple=True,
    help="Ask only this participant, also when the coordinator is dead; may be repeated.",
)
@json_option
def in_doubt(*, coordinator: str, folder: Path | None, addresses: tuple[str, ...], as_json: bool) -> None:
    """List the branches in doubt at each participant: prepared, and the outcome is not known there.

    A branch is in doubt for a moment in every transaction. One that stays so has lost its coordinator; it goes on
    asking by itself, and keeps its rows locked until it knows. `id` is the transaction's; it is the attempt's own name
    when the coordinator cannot be asked. Both can be given to `troth resolve`.

    \b
    Examples:
      troth in-doubt
      troth in-doubt --json
      troth in-doubt --cluster ./troth-data
      troth in-doubt --participant-address 127.0.0.1:7401

    \b
    Exit codes: 0 all participants answered; 1 one did not.
    """

    async def main() -> int:
        async with _if_there(_coordinator_of(coordinator, folder)) as client:
            places = await _places(client, folder, addresses)
            found, all_asked = await _everywhere(places)
            ids = {} if client is None else await _ids(client, {each.attempt for each in found})
        for each in found if as_json else ():
            say_json(render.in_doubt_json(each.participant, each.branch, ids.get(each.attempt, str(each.attempt))))
        if not as_json:
            _tell(found, ids)
        return 0 if all_asked else EXIT_OTHER

    run(main())


def _tell(found: Sequence[_Branch], ids: dict[AttemptId, str]) -> None:
    if not found:
        say("nothing is in doubt")
        return
    columns = ["participant", "id", "attempt", "age", "locked", "why", "who waits"]
    say_table(columns, (_cells(each, ids.get(each.attempt, str(each.attempt))) for each in found))


def _cells(each: _Branch, id: str) -> Sequence[str]:
    branch = each.branch
    resolved = f"resolved by hand as {Outcome(branch.heuristic).name}; " if branch.heuristic else ""
    waiting = render.names_text(map(render.attempt_text, branch.waiting))
    locked = render.names_text(branch.locked)
    return (
        each.participant,
        id,
        str(each.attempt),
        render.age_text(branch.age_s),
        locked,
        resolved + branch.why,
        waiting,
    )


async def _everywhere(places: dict[str, str]) -> tuple[list[_Branch], bool]:
    """All branches in doubt, oldest first at each participant; and whether every participant answered."""
    found: list[_Branch] = []
    all_asked = True
    for name, address in places.items():
        try:
            async with connect_participant(address, wait_s=WAIT_S) as there:
                called = (await soon(there.status(), address)).participant
                found += [_Branch(called, branch) for branch in await soon(there.in_doubt(), address)]
        except ServerError as error:
            complain(f"{name} cannot be asked: {error}")
            all_asked = False
    return found, all_asked


async def _ids(client: Client, attempts: Iterable[AttemptId]) -> dict[AttemptId, str]:
    """The transactions' ids, as far as the coordinator knows them: by what is in flight, then by its log."""
    wanted = sorted(attempts)
    if not wanted:
        return {}
    in_flight = await client.list(_LISTED_MAX, in_flight=True)
    ids = {AttemptId(found.attempt.log, found.attempt.number): found.id for found in in_flight}
    for attempt in wanted:
        if attempt not in ids:
            found = await client.get(str(attempt))
            if found.state != coordinator_pb2.STATE_NOT_FOUND:
                ids[attempt] = found.id
    return ids


# Resolving by hand.


def _said(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A reason that says something: it is what the audit log has of a person's decision (rule 12)."""
    if not value.strip():
        raise click.BadParameter("say why: the audit log keeps it (rule 12)", context, parameter)
    return value


_OUTCOMES = {"commit": Outcome.COMMITTED, "abort": Outcome.ABORTED}
_ANSWERS = {Answer.COMMITTED: Outcome.COMMITTED, Answer.ABORTED: Outcome.ABORTED}


@click.command("resolve")
@click.argument("id")
@click.argument("outcome", type=click.Choice(sorted(_OUTCOMES)))
@click.option("--participant", required=True, help="Where the branch is.")
@click.option("--reason", required=True, callback=_said, help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--gone", is_flag=True, help="The participant never comes back: settle its branch at the coordinator.")
@coordinator_option
@cluster_option
@click.option(
    "--participant-address",
    "address",
    type=AddressType(),
    help="Where that participant is; for when the coordinator is dead.",
)
def resolve(
    *,
    id: str,
    outcome: str,
    participant: str,
    reason: str,
    yes: bool,
    gone: bool,
    coordinator: str,
    folder: Path | None,
    address: str | None,
) -> None:
    """Resolve by hand the branch of transaction ID in doubt at one participant: a heuristic outcome.

    The branch is applied or undone there and its rows are free at once, whatever the other participants do: if the
    true outcome turns out otherwise, the transaction is torn. It is written to the audit log and marked as heuristic,
    and the participant goes on asking for the true outcome. What contradicts a decision that the coordinator knows is
    refused.

    ID is the transaction's, or an attempt as `troth in-doubt` prints it (needed when the coordinator is dead). To end a
    transaction that is merely undecided, use `troth abort ID`.

    \b
    Examples:
      troth resolve order-17 commit --participant p1 --reason 'p2 and p3 have committed'
      troth resolve troth:5c1e0a4be09d3f77:3:41 abort --participant p1 --cluster ./troth-data --reason 'disk lost'
      troth resolve order-17 commit --participant p1 --gone --reason 'p1 was given up' --yes

    \b
    Exit codes: 0 it was resolved; 1 refused, not in doubt there, not confirmed, and anything else; 2 bad input.
    """

    async def main() -> int:
        async with _if_there(_coordinator_of(coordinator, folder)) as client:
            if gone:
                done = await _settle(client, id, participant, _OUTCOMES[outcome], reason, yes)
            else:
                places = await _places(client, folder, [address] if address else ())
                where = places.get(participant, address)
                if where is None:
                    raise BadInput(f"no participant {participant!r}; known are {', '.join(sorted(places))}")
                async with connect_participant(where, wait_s=WAIT_S) as there:
                    done = await _resolve(client, there, id, participant, _OUTCOMES[outcome], reason, yes)
        say(done)
        return 0

    run(main())


async def _settle(client: Client | None, id: str, participant: str, outcome: Outcome, reason: str, yes: bool) -> str:
    if client is None:
        raise BadInput("--gone is for the coordinator, and that cannot be reached")
    _confirm(yes, f"Take {id} as {outcome.name} at {participant}, and never ask it again?")
    return await client.resolve(id, participant, outcome, reason)


async def _resolve(
    client: Client | None,
    there: ParticipantClient,
    id: str,
    participant: str,
    outcome: Outcome,
    reason: str,
    yes: bool,
) -> str:
    called = (await soon(there.status(), there.address)).participant
    if called != participant:
        raise BadInput(f"the participant at {there.address} is {called}, not {participant}")
    attempts = await _attempts(client, id)
    found = [_Branch(participant, branch) for branch in await soon(there.in_doubt(), there.address)]
    branch = next((each for each in found if each.attempt in attempts), None)
    if branch is None:
        raise Contradiction(f"{participant} has no branch of {id} in doubt; `troth in-doubt` lists what it has")
    known = await _known(client, branch.attempt)
    if known in _ANSWERS and _ANSWERS[known] is not outcome:
        raise Contradiction(f"{branch.attempt} is {_ANSWERS[known].name} by the coordinator's log, not {outcome.name}")
    locked = render.names_text(branch.branch.locked)
    _confirm(
        yes,
        f"{participant}: {branch.attempt}, in doubt for {render.age_text(branch.branch.age_s)}, locks {locked}.\n"
        f"The coordinator says: {'nothing' if known is Answer.NONE else known.name}.\n"
        f"Make it {outcome.name} there by hand?",
    )
    return await there.resolve(branch.attempt, outcome, reason)


async def _attempts(client: Client | None, id: str) -> set[AttemptId]:
    """The attempts that `id` may mean: itself, when it is of that form, and the transaction's last one."""
    attempts = set()
    try:
        attempts.add(AttemptId.parse(id))
    except ValueError as error:
        if client is None:
            message = f"{id!r} is a client's id, and the coordinator that knows its attempt is away"
            raise BadInput(f"{message}: give the attempt as `troth in-doubt` prints it (troth:...)") from error
    if client is not None:
        last = (await client.get(id)).attempt
        if last.log:
            attempts.add(AttemptId(last.log, last.number))
    return attempts


async def _known(client: Client | None, attempt: AttemptId) -> Answer:
    """What the coordinator's log says; NONE of an attempt of another log, about which it would raise an alarm."""
    if client is None or (await client.status()).log != attempt.log:
        return Answer.NONE
    return await client.outcome(attempt)


def _confirm(yes: bool, question: str) -> None:
    try:
        if yes or click.confirm(question, err=True):
            return
    except click.Abort as error:
        raise Contradiction("not confirmed, so nothing was changed; in scripts, use --yes") from error
    raise Contradiction("not confirmed, so nothing was changed")


# What the coordinator keeps.


@click.command("unresolved")
@coordinator_option
@json_option
def unresolved(*, coordinator: str, as_json: bool) -> None:
    """List what the coordinator cannot finish now: commits owed to a participant that does not answer, one-phase
    transactions without an answer, and branches that were resolved by hand (until `troth clear`).

    \b
    Examples:
      troth unresolved
      troth unresolved --json
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            found = await client.unresolved()
        if as_json:
            for each in found:
                say_json(render.unresolved_json(each))
        elif found:
            columns = ["kind", "participant", "id", "age", "why"]
            rows = [(each.kind, each.participant, each.id, render.age_text(each.age_s), each.why) for each in found]
            say_table(columns, rows)
        else:
            say("nothing is unresolved")
        return 0

    run(main())


@click.command("clear")
@click.argument("id")
@click.option("--participant", required=True, help="Whose branch was resolved by hand.")
@click.option("--reason", required=True, callback=_said, help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@coordinator_option
def clear(*, id: str, participant: str, reason: str, yes: bool, coordinator: str) -> None:
    """Clear the records that the coordinator keeps of a branch resolved by hand, once its consequences are dealt with.

    \b
    Examples:
      troth clear order-17 --participant p1 --reason 'alice was paid by hand'
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            _confirm(yes, f"Forget that the branch of {id} at {participant} was resolved by hand?")
            say(await client.clear(id, participant, reason))
        return 0

    run(main())
