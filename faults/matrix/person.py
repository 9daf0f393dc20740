"""The person of the case in which a branch is resolved by hand (rule 12), while the coordinator is dead and after.

Says what is true, so that nothing is torn: the decision is made and durable. Whatever a step meets, it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from faults.cluster import COORDINATOR, Cluster
from faults.matrix.cases import FIRST
from faults.matrix.judge import by_hand
from troth.v1.coordinator_pb2 import ResolveRequest
from troth.v1.participant_pb2 import InDoubtRequest, ResolveBranchRequest
from troth.words import Outcome

PATIENCE_S = 1.0
"""How long the person waits for one answer."""


class Person:
    """Resolves the branch of `id` at the first participant, has the coordinator started, and clears the record."""

    def __init__(self, cluster: Cluster, id: str, start: Callable[[], None]) -> None:
        """`start` starts the coordinator."""
        self._cluster = cluster
        self._id = id
        self._start = start
        self._begun = False
        self._resolved = False

    def step(self, dead: bool) -> None:
        """The next thing to do, as far as it can be done now. `dead`: the coordinator is.

        Nothing is done before it has died once, though a branch is in doubt already while the decision is made. That
        the branch is resolved is known from the answer, from the participant's doubt, or, when the answer was lost and
        the doubt is over, from the coordinator's log."""
        self._begun = self._begun or dead
        if not self._begun:
            return
        kept = bool(by_hand(self._cluster))
        if not (self._resolved or kept):
            self._resolve()
        elif dead:
            self._start()
        elif kept:
            request = ResolveRequest(id=self._id, participant=FIRST, clear=True)
            _said(self._cluster.commands.Resolve, request)

    @property
    def done(self) -> bool:
        """Whether nothing is left for a person, in the end: what is to be kept is written down before the transaction
        has ended."""
        query = "SELECT count(*) FROM troth_transactions WHERE id = ? AND ended_at IS NOT NULL"
        ((ended,),) = self._cluster.rows(COORDINATOR, query, self._id)
        return bool(ended) and not by_hand(self._cluster)

    def _resolve(self) -> None:
        doubt = _said(self._cluster.participant(FIRST).InDoubt, InDoubtRequest())
        for branch in [] if doubt is None else doubt.branches:
            request = ResolveBranchRequest(attempt=branch.attempt, outcome=_COMMITTED, reason="the matrix says so")
            self._resolved = bool(branch.heuristic or _said(self._cluster.branches(FIRST).Resolve, request))


_COMMITTED: Any = int(Outcome.COMMITTED)


def _said(call: Any, request: Any) -> Any:
    """The reply; None without one."""
    try:
        return call(request, timeout=PATIENCE_S)
    except grpc.RpcError:
        return None
