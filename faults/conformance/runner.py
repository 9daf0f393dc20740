"""Runs the checks against one participant, and leaves nothing behind: also when one fails, and on Ctrl-C.

Nothing here knows a rule. Failures of the participant (a broken lane, a call that fails) are violations of the check
that met them; failures of the kit itself propagate.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from faults.conformance import checks  # noqa: F401  # registers them
from faults.conformance import work as works
from faults.conformance.check import CHECKS, WITHOUT, Check, Finding, Needs, NotChecked, Result, Violated, require
from faults.conformance.control import CannotRestart, Control
from faults.conformance.scripted import (
    DIALLING,
    NothingCame,
    ScriptedCoordinator,
    ScriptedInquiries,
    ScriptedParticipant,
)
from faults.conformance.target import Target
from faults.conformance.work import TABLE, TableWork, Work
from troth.operations import key_values
from troth.v1 import participant_pb2, participant_pb2_grpc
from troth.v1.participant_pb2 import TableStatus
from troth.v1.types_pb2 import Column
from troth.values import Scalar, to_value

Report = Callable[[Finding], None]


class CannotCheck(Exception):
    """The checks cannot begin: nobody there, no table to write to."""


@contextmanager
def connected(
    address: str, name: str | None, control: Control | None, *, host: str, within_s: float, quiet_s: float
) -> Iterator[Target]:
    """The participant at `address`, which is asked for its name when none is given. `host` is where it reaches us;
    `control` is a way to have it killed; see `Target` for the times. Raises CannotCheck."""
    here = f"{host}:0"
    name = name or _name_of(address, within_s)
    with (
        ScriptedInquiries(here) as inquiries,
        ScriptedParticipant("a-peer", here, identity=secrets.token_hex(8)) as peer,
    ):
        lane = ScriptedCoordinator(name, address, log=secrets.token_hex(8), address=inquiries.address)
        target = Target(lane, inquiries, peer, control, within_s=within_s, quiet_s=quiet_s)
        try:
            try:
                target.open()
            except NothingCame as nothing:
                raise CannotCheck(f"{address} opens no lane for participant {name!r}: {nothing}") from nothing
            yield target
        finally:
            lane.__exit__()


def _name_of(address: str, within_s: float) -> str:
    with grpc.insecure_channel(address, DIALLING) as channel:
        stub: Any = participant_pb2_grpc.ParticipantQueriesStub
        request = participant_pb2.ParticipantStatusRequest()
        try:
            return str(stub(channel).Status(request, timeout=3 * within_s, wait_for_ready=True).participant)
        except grpc.RpcError as error:
            why = f"{address} does not say its name ({_rpc_text(error)}): is it there, or is its name to be given?"
            raise CannotCheck(why) from error


def table_work(t: Target, table: str | None) -> TableWork:
    """Work in that table, or in our own, made when it is missing. Raises CannotCheck."""
    wanted = table or TABLE
    tables = _tables(t)
    if tables is not None and wanted not in tables and table is None:
        _create(t)
        tables = _tables(t)
    if tables is None or wanted not in tables:
        raise CannotCheck(f"it serves no table {wanted!r}, so say what to write: --table, or --writes and --reads")
    constraints = {works.UNIQUE, works.BOUNDED, works.PARENT, works.CHILD} <= tables.keys()
    try:
        return TableWork(tables[wanted], constraints)
    except ValueError as error:
        raise CannotCheck(str(error)) from error


def _tables(t: Target) -> dict[str, TableStatus] | None:
    """The tables that are served, by name; None when it does not say."""
    try:
        reply = t.call(t.queries.Tables, participant_pb2.TablesRequest())
    except NotChecked:
        return None
    return {table.name: table for table in reply.tables if not table.not_served}


def _create(t: Target) -> None:
    values: dict[str, Scalar] = {"n": 0, "note": ""}
    request = participant_pb2.CreateTableRequest(
        table=TABLE,
        key=[Column(name="id", value=key_values(1)[0])],
        values=[Column(name=name, value=to_value(value)) for name, value in values.items()],
    )
    try:
        t.call(t.branches.CreateTable, request)
    except (NotChecked, grpc.RpcError) as error:
        raise CannotCheck(f"it makes no table, so say what to write: {error}") from error


def run(t: Target, work: Work, report: Report, only: Sequence[Check] | None = None) -> None:
    """Runs the checks one after the other and reports each finding; then ends what is open, takes away what was
    written, and looks whether anything is left. A participant that does not come back ends it: the remaining checks are
    not made."""
    t.work = work
    gone = ""
    try:
        for each in CHECKS if only is None else only:
            report(Finding(each, Result.NOT_CHECKED, seen=gone) if gone else run_one(t, each))
            gone = gone or _tidied(t)
    finally:
        report(Finding(NOTHING_LEFT, Result.NOT_CHECKED, seen=gone) if gone else run_one(t, NOTHING_LEFT))


def _nothing_is_left(t: Target) -> None:
    t.tidy()
    t.work.clean(t)
    t.tidy()
    t.finish()
    left = t.left_behind()
    require(not left, "nothing in doubt and no lock", "; ".join(left))


NOTHING_LEFT = Check(
    "nothing-is-left",
    "rule 8",
    "What has ended is not in doubt, and holds no lock.",
    Needs.NOTHING,
    _nothing_is_left,
)
"""Made last, always: it is the cleaning up."""


def run_one(t: Target, check: Check) -> Finding:
    """One check, and what came of it."""
    missing = check.needs & ~t.offers
    if missing:
        return Finding(check, Result.NOT_CHECKED, seen="; ".join(WITHOUT[need] for need in missing))
    try:
        check.run(t)
    except NotChecked as why:
        return Finding(check, Result.NOT_CHECKED, seen=str(why))
    except Violated as error:
        return Finding(check, Result.VIOLATED, error.expected, error.seen)
    except NothingCame as error:
        return Finding(check, Result.VIOLATED, "an answer", str(error))
    except grpc.RpcError as error:
        return Finding(check, Result.VIOLATED, "the call to be answered", _rpc_text(error))
    except CannotRestart as error:
        return Finding(check, Result.NOT_CHECKED, seen=str(error))
    return Finding(check, Result.HOLDS)


def _tidied(t: Target) -> str:
    """Ends what the check left open, in another life if need be; why that was not possible, if it was not."""
    try:
        try:
            t.tidy()
        except (NothingCame, Violated, grpc.RpcError):
            if Needs.RESTART not in t.offers:
                raise
            t.kill()
            t.tidy()
    except (NothingCame, Violated, CannotRestart, grpc.RpcError) as error:
        return f"the participant is gone: {error}"
    return ""


def _rpc_text(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}" if hasattr(error, "code") else str(error)
