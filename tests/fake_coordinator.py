"""A coordinator and a participant that answer what a test scripts, over real gRPC in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from troth.reasons import reason
from troth.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc, types_pb2
from troth.v1.coordinator_pb2 import SubmitRequest, SubmitResult
from troth.v1.types_pb2 import Code, Value
from troth.words import Outcome


class Lost(Exception):
    """The script says: the connection breaks here."""


Script = Callable[[SubmitRequest], SubmitResult | None]


def committed(request: SubmitRequest) -> SubmitResult:
    """Commits, and brings back a row for each `read`."""
    rows = [
        types_pb2.Row(
            position=operation.position,
            participant=branch.participant,
            table=operation.table,
            key=operation.key,
            present=operation.key[0].text != "nobody",
            values=[types_pb2.Column(name="balance", value=Value(integer=100))],
        )
        for branch in request.branches
        for operation in branch.operations.operations
        if operation.HasField("read")
    ]
    return SubmitResult(id=request.id, outcome=Outcome.COMMITTED, rows=rows, attempts=1)


def aborted(request: SubmitRequest) -> SubmitResult:
    """Says no as a participant would."""
    why = reason(
        Code.CODE_BELOW_MIN,
        "balance would be -100",
        participant="p1",
        operation=0,
        table="accounts",
        key=[Value(text="alice")],
        column="balance",
        required=Value(integer=0),
        found=Value(integer=-100),
    )
    return SubmitResult(id=request.id, outcome=Outcome.ABORTED, reason=why)


def refused(request: SubmitRequest) -> SubmitResult:
    """Says that the id is taken."""
    why = reason(Code.CODE_ID_TAKEN, "the id is taken by other content")
    return SubmitResult(id=request.id, outcome=Outcome.REFUSED, reason=why)


def unknown(request: SubmitRequest) -> SubmitResult:
    """Does not know yet."""
    return SubmitResult(id=request.id, outcome=Outcome.UNKNOWN)


class FakeCoordinator(coordinator_pb2_grpc.CommandsServicer):
    """Remembers what it was sent, and answers by `script`; None is never answered, Lost breaks the connection."""

    def __init__(self) -> None:
        self.script: Script = committed
        self.seen: list[SubmitRequest] = []
        self.streams = 0
        self.calls: list[Any] = []
        self.transactions: dict[str, list[coordinator_pb2.Transaction]] = {}
        """What `get` answers for an id, one after the other; the last one stays."""
        self.status = coordinator_pb2.CoordinatorStatus(log="c" * 16, epoch=1, pid=1, serving=True)
        self.unresolved: list[coordinator_pb2.Unresolved] = []
        self.answer = types_pb2.ANSWER_NONE
        self.released = threading.Event()
        self.address = ""

    def Submit(self, request: SubmitRequest, context: Any) -> SubmitResult:
        self.seen.append(request)
        try:
            result = self.script(request)
        except Lost:
            context.abort(grpc.StatusCode.UNAVAILABLE, "lost by script")
        if result is None:
            self.released.wait()
        return self._tagged(request, result)

    def SubmitMany(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self.streams += 1
        for batch in requests:
            results = coordinator_pb2.SubmitResults()
            for request in batch.submissions:
                self.seen.append(request)
                try:
                    result = self.script(request)
                except Lost:
                    if results.results:
                        yield results
                    context.abort(grpc.StatusCode.UNAVAILABLE, "lost by script")
                if result is not None:
                    results.results.append(self._tagged(request, result))
            if results.results:
                yield results

    def _tagged(self, request: SubmitRequest, result: SubmitResult | None) -> SubmitResult:
        result = result or unknown(request)
        result.tag = request.tag
        return result

    def Abort(self, request: Any, context: Any) -> SubmitResult:
        self.calls.append(request)
        return self.script(SubmitRequest(id=request.id)) or SubmitResult(id=request.id)

    def Resolve(self, request: Any, context: Any) -> Any:
        self.calls.append(request)
        if request.id == "known":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "known is COMMITTED")
        return coordinator_pb2.ResolveReply(message="done at the coordinator")

    # Queries; the same object serves them.

    def Get(self, request: Any, context: Any) -> Any:
        found = self.transactions.get(request.id)
        if not found:
            return coordinator_pb2.Transaction(id=request.id, state=coordinator_pb2.STATE_NOT_FOUND)
        return found.pop(0) if len(found) > 1 else found[0]

    def List(self, request: Any, context: Any) -> Any:
        self.calls.append(request)
        return coordinator_pb2.ListReply(transactions=[found[-1] for found in self.transactions.values()])

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        for found in self.transactions.values():
            yield found[-1]

    def Unresolved(self, request: Any, context: Any) -> Any:
        return coordinator_pb2.UnresolvedReply(unresolved=self.unresolved)

    def Status(self, request: Any, context: Any) -> Any:
        return self.status

    def Outcome(self, request: Any, context: Any) -> Any:
        self.calls.append(request)
        return coordinator_pb2.OutcomeReply(answer=self.answer)


class FakeParticipant(participant_pb2_grpc.ParticipantQueriesServicer):
    """Has what a test gives it, and remembers what it was told."""

    def __init__(self, name: str = "p1") -> None:
        self.name = name
        self.branches: list[participant_pb2.InDoubt] = []
        self.tables: list[str] = []
        self.calls: list[Any] = []
        self.address = ""

    def InDoubt(self, request: Any, context: Any) -> Any:
        return participant_pb2.InDoubtReply(branches=self.branches)

    def Locks(self, request: Any, context: Any) -> Any:
        return participant_pb2.LocksReply()

    def ReadRow(self, request: Any, context: Any) -> Any:
        if request.table != "accounts":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no table {request.table}")
        return types_pb2.Row(participant=self.name, table=request.table, key=request.key, present=False)

    def Tables(self, request: Any, context: Any) -> Any:
        return participant_pb2.TablesReply(tables=[participant_pb2.TableStatus(name=name) for name in self.tables])

    def Status(self, request: Any, context: Any) -> Any:
        return participant_pb2.ParticipantStatus(participant=self.name, identity="f" * 16, pid=2, serving=True)

    def Resolve(self, request: Any, context: Any) -> Any:
        self.calls.append(request)
        return coordinator_pb2.ResolveReply(message="done at the participant")

    def CreateTable(self, request: Any, context: Any) -> Any:
        self.calls.append(request)
        self.tables.append(request.table)
        return participant_pb2.CreateTableReply(created=True)


@contextmanager
def coordinator(address: str = "127.0.0.1:0") -> Iterator[FakeCoordinator]:
    """A fake coordinator that listens; `address` may be that of an earlier one."""
    fake = FakeCoordinator()
    adds = [
        coordinator_pb2_grpc.add_CommandsServicer_to_server,
        coordinator_pb2_grpc.add_QueriesServicer_to_server,
        coordinator_pb2_grpc.add_InquiriesServicer_to_server,
    ]
    with _listening(fake, adds, address) as fake.address:
        try:
            yield fake
        finally:
            fake.released.set()


@contextmanager
def participant(name: str = "p1") -> Iterator[FakeParticipant]:
    """A fake participant that listens."""
    fake = FakeParticipant(name)
    queries = participant_pb2_grpc.add_ParticipantQueriesServicer_to_server
    with _listening(fake, [queries, _add_branches], "127.0.0.1:0") as fake.address:
        yield fake


def _add_branches(fake: FakeParticipant, server: grpc.Server) -> None:
    class Branches(participant_pb2_grpc.BranchesServicer):
        Resolve = staticmethod(fake.Resolve)
        CreateTable = staticmethod(fake.CreateTable)

    participant_pb2_grpc.add_BranchesServicer_to_server(Branches(), server)


@contextmanager
def _listening(fake: Any, adds: list[Callable[[Any, Any], None]], address: str) -> Iterator[str]:
    with futures.ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", 16 << 20), ("grpc.so_reuseport", 0)])
        for add in adds:
            add(fake, server)
        port = server.add_insecure_port(address)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            if hasattr(fake, "released"):
                fake.released.set()
            server.stop(0).wait()
