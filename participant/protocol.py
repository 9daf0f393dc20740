"""The participant's protocol for one branch, as a table.

A branch waits for its locks, is tried at the writer, votes, and after a YES does what the coordinator decided: presumed
abort (Mohan, Lindsay, Obermarck 1986), with a read-only vote and a one-phase commit. What is forced when:

- a YES leaves only after the prepared record is durable; from then on the participant never decides alone (rule 6);
- an acknowledgement leaves only after the commit is durable;
- an abort is remembered lazily: the coordinator's log presumes it;
- a refusal on behalf of a peer (REFUSING) is durable before the peer hears it, for from then on this participant may
  never vote YES: the peer acts on its word.

`TABLE` holds every legal (state, input) pair with what is done and the next state. A pair that is missing is refused
without moving, and is an alarm. Guards are inputs: whether an attempt lies below the low-water mark, whether a
one-phase request names this incarnation. Nothing here knows of locks, disks or clocks; `node.py` does what the
actions say.
"""

from __future__ import annotations

from troth.words import Symbol


class State(Symbol):
    """Where a branch stands at this participant."""

    UNKNOWN = "unknown"
    """No trace of it."""
    WAITING = "waiting"
    """In line for its locks."""
    TRYING = "trying"
    """At the writer: its trial, and with it its prepared record."""
    RUNNING = "running"
    """One-phase, at the writer: tried and applied in one step."""
    PREPARED = "prepared"
    """Voted YES: in doubt until told."""
    READ_ONLY = "read_only"
    """Voted READ_ONLY: keeps its shared locks until told."""
    COMMITTING = "committing"
    """Told to commit; the apply is queued and not durable."""
    COMMITTED = "committed"
    """Committed, durably."""
    DENIED = "denied"
    """Voted NO; nothing is durable."""
    REFUSING = "refusing"
    """A peer asked first: the refusal is queued and not durable."""
    ABORTED = "aborted"
    """Aborted, as the coordinator said or by a durable refusal."""
    HEURISTIC = "heuristic"
    """A person resolved it; the true outcome is not known here."""
    LEARNING = "learning"
    """The true outcome of a heuristic branch is queued and not durable."""
    LEARNED = "learned"
    """Resolved by hand, and the true outcome is known durably; the record is kept until cleared."""


class Input(Symbol):
    """What can happen to a branch."""

    PREPARE = "prepare"
    PREPARE_ENDED = "prepare below the mark"
    ONE_PHASE = "one-phase request"
    ONE_PHASE_FOREIGN = "one-phase request for another incarnation"
    ONE_PHASE_ENDED = "one-phase request below the mark"
    GRANTED = "locks granted"
    GRANTED_ALONE = "locks granted, one-phase"
    NOT_GRANTED = "locks not granted"
    TRIED = "trial succeeded"
    TRIED_READ_ONLY = "read-only trial succeeded"
    TRIED_NO = "trial said no"
    DURABLE = "record durable"
    COMMIT = "commit"
    COMMIT_ENDED = "commit below the mark"
    ABORT = "abort"
    RELEASE = "release"
    INQUIRE = "inquiry due"
    PEER_ASKS = "peer asks"
    PEER_ASKS_ENDED = "peer asks below the mark"
    COORDINATOR_ASKS = "coordinator asks"
    COORDINATOR_ASKS_ENDED = "coordinator asks below the mark"
    RESOLVE_COMMIT = "a person commits"
    RESOLVE_ABORT = "a person aborts"
    CONTRADICTED = "found ended otherwise at the server"


class Action(Symbol):
    """What is done on the way; `node.py` has one method for each."""

    NOTHING = "nothing"
    ALARM = "alarm"
    QUEUE = "ask for all locks"
    TRY = "queue the trial"
    RUN = "queue the one-phase run"
    VOTE_YES = "vote YES"
    VOTE_READ_ONLY = "vote READ_ONLY"
    VOTE_NO = "vote NO"
    VOTE_NO_ENDED = "vote NO: ended before"
    VOTE_AGAIN = "the same vote again"
    TELL_COMMITTED = "tell: one-phase committed"
    APPLY = "queue the apply (forced), let the locks go"
    ACKNOWLEDGE = "acknowledge"
    REMEMBER = "remember ABORTED in memory"
    WITHDRAW = "leave the lines"
    UNDO = "queue the undo (lazy), let the locks go"
    UNLOCK = "let the locks go"
    REFUSE = "queue the refusal (forced), leave the lines, vote NO"
    REFUSE_AGAIN = "queue the refusal (forced)"
    ANSWER_LATER = "answer the peer when durable"
    ANSWER_PEERS = "answer the peers ABORTED"
    SAY_PENDING = "answer PENDING"
    SAY_COMMITTED = "answer COMMITTED"
    SAY_ABORTED = "answer ABORTED"
    SAY_KNOWN = "answer the true outcome"
    SAY_NOTHING = "say nothing"
    ASK = "ask the coordinator, then the peers"
    ASK_COORDINATOR = "ask the coordinator"
    RESOLVE = "queue the heuristic outcome (forced), let the locks go"
    LEARN_COMMITTED = "queue the true outcome COMMITTED (forced)"
    LEARN_ABORTED = "queue the true outcome ABORTED (lazy)"
    ACKNOWLEDGE_HEURISTIC = "acknowledge as heuristic, answer the peers that wait"
    KEEP_CONTRADICTION = "queue what was found with the true outcome (forced), let the locks go"


S, I, A = State, Input, Action  # noqa: E741

TABLE: dict[tuple[State, Input], tuple[Action, State]] = {
    # No trace.
    (S.UNKNOWN, I.PREPARE): (A.QUEUE, S.WAITING),
    (S.UNKNOWN, I.PREPARE_ENDED): (A.VOTE_NO_ENDED, S.UNKNOWN),
    (S.UNKNOWN, I.ONE_PHASE): (A.QUEUE, S.WAITING),
    (S.UNKNOWN, I.ONE_PHASE_FOREIGN): (A.SAY_NOTHING, S.UNKNOWN),
    (S.UNKNOWN, I.ONE_PHASE_ENDED): (A.SAY_NOTHING, S.UNKNOWN),
    (S.UNKNOWN, I.COMMIT): (A.ALARM, S.UNKNOWN),
    (S.UNKNOWN, I.COMMIT_ENDED): (A.ACKNOWLEDGE, S.UNKNOWN),
    (S.UNKNOWN, I.ABORT): (A.REMEMBER, S.ABORTED),
    (S.UNKNOWN, I.RELEASE): (A.NOTHING, S.UNKNOWN),
    (S.UNKNOWN, I.PEER_ASKS): (A.REFUSE_AGAIN, S.REFUSING),
    (S.UNKNOWN, I.PEER_ASKS_ENDED): (A.SAY_NOTHING, S.UNKNOWN),
    (S.UNKNOWN, I.COORDINATOR_ASKS): (A.SAY_ABORTED, S.ABORTED),
    (S.UNKNOWN, I.COORDINATOR_ASKS_ENDED): (A.SAY_NOTHING, S.UNKNOWN),
    # In line for locks.
    (S.WAITING, I.PREPARE): (A.NOTHING, S.WAITING),
    (S.WAITING, I.ONE_PHASE): (A.NOTHING, S.WAITING),
    (S.WAITING, I.GRANTED): (A.TRY, S.TRYING),
    (S.WAITING, I.GRANTED_ALONE): (A.RUN, S.RUNNING),
    (S.WAITING, I.NOT_GRANTED): (A.VOTE_NO, S.DENIED),
    (S.WAITING, I.COMMIT): (A.ALARM, S.WAITING),
    (S.WAITING, I.ABORT): (A.WITHDRAW, S.ABORTED),
    (S.WAITING, I.RELEASE): (A.NOTHING, S.WAITING),
    (S.WAITING, I.PEER_ASKS): (A.REFUSE, S.REFUSING),
    (S.WAITING, I.COORDINATOR_ASKS): (A.SAY_PENDING, S.WAITING),
    # At the writer.
    (S.TRYING, I.PREPARE): (A.NOTHING, S.TRYING),
    (S.TRYING, I.TRIED): (A.VOTE_YES, S.PREPARED),
    (S.TRYING, I.TRIED_READ_ONLY): (A.VOTE_READ_ONLY, S.READ_ONLY),
    (S.TRYING, I.TRIED_NO): (A.VOTE_NO, S.DENIED),
    (S.TRYING, I.COMMIT): (A.ALARM, S.TRYING),
    (S.TRYING, I.ABORT): (A.UNDO, S.ABORTED),
    (S.TRYING, I.RELEASE): (A.NOTHING, S.TRYING),
    (S.TRYING, I.PEER_ASKS): (A.SAY_NOTHING, S.TRYING),
    (S.RUNNING, I.ONE_PHASE): (A.NOTHING, S.RUNNING),
    (S.RUNNING, I.TRIED): (A.TELL_COMMITTED, S.COMMITTED),
    (S.RUNNING, I.TRIED_NO): (A.VOTE_NO, S.DENIED),
    (S.RUNNING, I.COORDINATOR_ASKS): (A.SAY_PENDING, S.RUNNING),
    (S.RUNNING, I.PEER_ASKS): (A.SAY_NOTHING, S.RUNNING),
    # The word is given.
    (S.PREPARED, I.PREPARE): (A.VOTE_AGAIN, S.PREPARED),
    (S.PREPARED, I.COMMIT): (A.APPLY, S.COMMITTING),
    (S.PREPARED, I.ABORT): (A.UNDO, S.ABORTED),
    (S.PREPARED, I.INQUIRE): (A.ASK, S.PREPARED),
    (S.PREPARED, I.PEER_ASKS): (A.SAY_NOTHING, S.PREPARED),
    (S.PREPARED, I.RESOLVE_COMMIT): (A.RESOLVE, S.HEURISTIC),
    (S.PREPARED, I.RESOLVE_ABORT): (A.RESOLVE, S.HEURISTIC),
    # Read only: no word, only locks.
    (S.READ_ONLY, I.PREPARE): (A.VOTE_AGAIN, S.READ_ONLY),
    (S.READ_ONLY, I.COMMIT): (A.UNLOCK, S.UNKNOWN),
    (S.READ_ONLY, I.ABORT): (A.UNLOCK, S.UNKNOWN),
    (S.READ_ONLY, I.RELEASE): (A.UNLOCK, S.UNKNOWN),
    (S.READ_ONLY, I.INQUIRE): (A.ASK_COORDINATOR, S.READ_ONLY),
    (S.READ_ONLY, I.PEER_ASKS): (A.SAY_NOTHING, S.READ_ONLY),
    # Told to commit.
    (S.COMMITTING, I.PREPARE): (A.NOTHING, S.COMMITTING),
    (S.COMMITTING, I.COMMIT): (A.NOTHING, S.COMMITTING),
    (S.COMMITTING, I.ABORT): (A.ALARM, S.COMMITTING),
    (S.COMMITTING, I.DURABLE): (A.ACKNOWLEDGE, S.COMMITTED),
    (S.COMMITTING, I.PEER_ASKS): (A.SAY_COMMITTED, S.COMMITTING),
    (S.COMMITTING, I.CONTRADICTED): (A.KEEP_CONTRADICTION, S.LEARNING),
    (S.COMMITTED, I.PREPARE): (A.NOTHING, S.COMMITTED),
    (S.COMMITTED, I.ONE_PHASE): (A.TELL_COMMITTED, S.COMMITTED),
    (S.COMMITTED, I.COMMIT): (A.ACKNOWLEDGE, S.COMMITTED),
    (S.COMMITTED, I.ABORT): (A.ALARM, S.COMMITTED),
    (S.COMMITTED, I.PEER_ASKS): (A.SAY_COMMITTED, S.COMMITTED),
    (S.COMMITTED, I.COORDINATOR_ASKS): (A.SAY_COMMITTED, S.COMMITTED),
    # Voted NO: nothing is durable, so a peer is answered only after a refusal that is.
    (S.DENIED, I.PREPARE): (A.VOTE_AGAIN, S.DENIED),
    (S.DENIED, I.ONE_PHASE): (A.VOTE_AGAIN, S.DENIED),
    (S.DENIED, I.COMMIT): (A.ALARM, S.DENIED),
    (S.DENIED, I.ABORT): (A.NOTHING, S.ABORTED),
    (S.DENIED, I.RELEASE): (A.NOTHING, S.DENIED),
    (S.DENIED, I.PEER_ASKS): (A.REFUSE_AGAIN, S.REFUSING),
    (S.DENIED, I.COORDINATOR_ASKS): (A.SAY_ABORTED, S.DENIED),
    # Refusing for a peer.
    (S.REFUSING, I.PREPARE): (A.VOTE_NO_ENDED, S.REFUSING),
    (S.REFUSING, I.COMMIT): (A.ALARM, S.REFUSING),
    (S.REFUSING, I.ABORT): (A.NOTHING, S.REFUSING),
    (S.REFUSING, I.RELEASE): (A.NOTHING, S.REFUSING),
    (S.REFUSING, I.DURABLE): (A.ANSWER_PEERS, S.ABORTED),
    (S.REFUSING, I.PEER_ASKS): (A.ANSWER_LATER, S.REFUSING),
    (S.REFUSING, I.ONE_PHASE): (A.SAY_NOTHING, S.REFUSING),
    (S.REFUSING, I.COORDINATOR_ASKS): (A.SAY_PENDING, S.REFUSING),
    (S.REFUSING, I.CONTRADICTED): (A.KEEP_CONTRADICTION, S.LEARNING),
    (S.ABORTED, I.PREPARE): (A.VOTE_NO_ENDED, S.ABORTED),
    (S.ABORTED, I.ONE_PHASE): (A.VOTE_NO_ENDED, S.ABORTED),
    (S.ABORTED, I.COMMIT): (A.ALARM, S.ABORTED),
    (S.ABORTED, I.ABORT): (A.NOTHING, S.ABORTED),
    (S.ABORTED, I.RELEASE): (A.NOTHING, S.ABORTED),
    (S.ABORTED, I.PEER_ASKS): (A.SAY_ABORTED, S.ABORTED),
    (S.ABORTED, I.COORDINATOR_ASKS): (A.SAY_ABORTED, S.ABORTED),
    (S.ABORTED, I.CONTRADICTED): (A.KEEP_CONTRADICTION, S.LEARNING),
    # Resolved by a person.
    (S.HEURISTIC, I.PREPARE): (A.NOTHING, S.HEURISTIC),
    (S.HEURISTIC, I.COMMIT): (A.LEARN_COMMITTED, S.LEARNING),
    (S.HEURISTIC, I.ABORT): (A.LEARN_ABORTED, S.LEARNING),
    (S.HEURISTIC, I.INQUIRE): (A.ASK, S.HEURISTIC),
    (S.HEURISTIC, I.PEER_ASKS): (A.SAY_NOTHING, S.HEURISTIC),
    (S.LEARNING, I.PREPARE): (A.NOTHING, S.LEARNING),
    (S.LEARNING, I.COMMIT): (A.NOTHING, S.LEARNING),
    (S.LEARNING, I.ABORT): (A.NOTHING, S.LEARNING),
    (S.LEARNING, I.DURABLE): (A.ACKNOWLEDGE_HEURISTIC, S.LEARNED),
    (S.LEARNING, I.PEER_ASKS): (A.SAY_KNOWN, S.LEARNING),
    (S.LEARNED, I.PREPARE): (A.NOTHING, S.LEARNED),
    (S.LEARNED, I.COMMIT): (A.ACKNOWLEDGE_HEURISTIC, S.LEARNED),
    (S.LEARNED, I.ABORT): (A.NOTHING, S.LEARNED),
    (S.LEARNED, I.PEER_ASKS): (A.SAY_KNOWN, S.LEARNED),
}
"""(state, input) -> (action, next state). A pair that is not here is illegal."""
