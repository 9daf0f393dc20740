"""The coordinator's protocol for one attempt, as a table.

Two-phase commit with presumed abort (Mohan, Lindsay, Obermarck 1986): only a commit is forced to the log, and what
the log does not hold is aborted. What is forced when, and why silence means abort:

- COMMITTED is handed to the register and then forced before anybody hears it (RECORDING);
- an abort needs no record for participants; for a client that chose the id it is forced before the client hears it;
- the end of a committed attempt is written lazily: losing it only repeats commits that are acknowledged again;
- a one-phase attempt of a client's id is claimed, forced, before it is sent; from then on only its participant
  decides (rule 13).

`TABLE` holds every legal (state, input) pair with what is done and the next state; a missing pair is refused without
moving. Guards are inputs: whether a vote is the last one, whether the id is tried again, whether the client chose
the id.
"""

from __future__ import annotations

from troth.words import Symbol


class State(Symbol):
    """Where an attempt stands at the coordinator."""

    NEW = "new"
    """Numbered; nothing sent."""
    PREPARING = "preparing"
    """Prepares are out; votes are awaited."""
    DECIDING = "deciding"
    """Every vote is good; the register was asked for COMMITTED."""
    RECORDING = "recording"
    """The commit decision is queued and not durable."""
    COMMITTING = "committing"
    """The decision is durable and told; acknowledgements are awaited."""
    ABORTING = "aborting"
    """The register was asked for ABORTED, for good."""
    RECORDING_ABORT = "recording abort"
    """ABORTED of a client's id is queued and not durable."""
    CLAIMING = "claiming"
    """One-phase: the submitted record is queued and not durable."""
    DELEGATED = "delegated"
    """One-phase: the participant decides."""
    RESOLVING = "resolving"
    """One-phase: a person decided; the record is not durable, and the participant is no longer listened to."""
    SETTLING = "settling"
    """One-phase: committed; the lazy record is not durable, and the mark waits for it."""
    DROPPING = "dropping"
    """One-phase: aborted and tried again; the lazy record is not durable, and the mark waits for it."""
    ENDED = "ended"
    """Nothing more to do."""


class Input(Symbol):
    """What can happen to an attempt."""

    PREPARE = "start"
    CLAIM = "start one-phase, client's id"
    DELEGATE = "start one-phase"
    ABANDON = "give up without an attempt"
    VOTE = "a good vote, others missing"
    LAST_VOTE = "the last good vote"
    FAILED = "failed, to be tried again"
    FAILED_CLAIMED = "one-phase failed, client's id, to be tried again"
    FAILED_FOR_GOOD = "failed for good"
    ABORT_ASKED = "abort asked"
    WON_COMMIT = "the register said COMMITTED"
    WON_READS = "the register said COMMITTED, all read-only, assigned id"
    WON_ABORT = "the register said ABORTED"
    WON_ABORT_ASSIGNED = "the register said ABORTED, assigned id"
    LOST_DECISION = "another writer's ABORTED came first"
    DURABLE = "record durable"
    DURABLE_READS = "record durable, nothing owed"
    ACKNOWLEDGED = "acknowledged, others missing"
    LAST_ACKNOWLEDGED = "the last acknowledgement"
    COMMITTED_ALONE = "one-phase committed"
    COMMITTED_ALONE_ASSIGNED = "one-phase committed, assigned id"
    RESOLVED = "a person decides"
    REMIND = "reminder due"


class Action(Symbol):
    """What is done on the way; `node.py` has one method for each."""

    NOTHING = "nothing"
    SEND_PREPARES = "send all prepares"
    CLAIM = "force the submitted record"
    SEND_ONE_PHASE = "send the one-phase request, or ask"
    ASK_REGISTER_COMMIT = "ask the register for COMMITTED"
    ASK_REGISTER_ABORT = "ask the register for ABORTED"
    TELL_ABORT = "tell the participants to abort; try again later"
    DROP = "forget the one-phase attempt (lazy); try again later"
    RECORD_COMMIT = "force the decision"
    RECORD_ABORT = "tell the participants to abort, force ABORTED"
    ANSWER_ABORTED = "tell the participants to abort, answer ABORTED"
    CLOSE_ABORTED = "answer ABORTED"
    TELL_COMMIT = "answer COMMITTED, send commits and releases"
    RELEASE = "answer COMMITTED, send releases"
    END = "write the end (lazy)"
    SETTLE = "answer COMMITTED, write it (lazy)"
    ANSWER_COMMITTED = "answer COMMITTED"
    SEND_AGAIN = "send owed commits again"
    ASK = "ask the participant how it ended"
    JOIN = "answer with the outcome"
    SAY_PENDING = "say that it is open"


S, I, A = State, Input, Action  # noqa: E741

TABLE: dict[tuple[State, Input], tuple[Action, State]] = {
    (S.NEW, I.PREPARE): (A.SEND_PREPARES, S.PREPARING),
    (S.NEW, I.CLAIM): (A.CLAIM, S.CLAIMING),
    (S.NEW, I.DELEGATE): (A.SEND_ONE_PHASE, S.DELEGATED),
    (S.NEW, I.ABANDON): (A.ASK_REGISTER_ABORT, S.ABORTING),
    # Votes.
    (S.PREPARING, I.VOTE): (A.NOTHING, S.PREPARING),
    (S.PREPARING, I.LAST_VOTE): (A.ASK_REGISTER_COMMIT, S.DECIDING),
    (S.PREPARING, I.FAILED): (A.TELL_ABORT, S.ENDED),
    (S.PREPARING, I.FAILED_FOR_GOOD): (A.ASK_REGISTER_ABORT, S.ABORTING),
    (S.PREPARING, I.ABORT_ASKED): (A.ASK_REGISTER_ABORT, S.ABORTING),
    # Commit.
    (S.DECIDING, I.WON_COMMIT): (A.RECORD_COMMIT, S.RECORDING),
    (S.DECIDING, I.WON_READS): (A.RELEASE, S.ENDED),
    (S.DECIDING, I.LOST_DECISION): (A.ANSWER_ABORTED, S.ENDED),
    (S.DECIDING, I.ABORT_ASKED): (A.JOIN, S.DECIDING),
    (S.RECORDING, I.DURABLE): (A.TELL_COMMIT, S.COMMITTING),
    (S.RECORDING, I.DURABLE_READS): (A.RELEASE, S.ENDED),
    (S.RECORDING, I.ABORT_ASKED): (A.JOIN, S.RECORDING),
    (S.COMMITTING, I.ACKNOWLEDGED): (A.NOTHING, S.COMMITTING),
    (S.COMMITTING, I.LAST_ACKNOWLEDGED): (A.END, S.ENDED),
    (S.COMMITTING, I.REMIND): (A.SEND_AGAIN, S.COMMITTING),
    # Abort.
    (S.ABORTING, I.WON_ABORT): (A.RECORD_ABORT, S.RECORDING_ABORT),
    (S.ABORTING, I.WON_ABORT_ASSIGNED): (A.ANSWER_ABORTED, S.ENDED),
    (S.ABORTING, I.ABORT_ASKED): (A.JOIN, S.ABORTING),
    (S.RECORDING_ABORT, I.DURABLE): (A.CLOSE_ABORTED, S.ENDED),
    (S.RECORDING_ABORT, I.ABORT_ASKED): (A.JOIN, S.RECORDING_ABORT),
    # One-phase: the participant decides.
    (S.CLAIMING, I.DURABLE): (A.SEND_ONE_PHASE, S.DELEGATED),
    (S.CLAIMING, I.ABORT_ASKED): (A.SAY_PENDING, S.CLAIMING),
    (S.DELEGATED, I.COMMITTED_ALONE): (A.SETTLE, S.SETTLING),
    (S.DELEGATED, I.COMMITTED_ALONE_ASSIGNED): (A.ANSWER_COMMITTED, S.ENDED),
    (S.DELEGATED, I.FAILED): (A.TELL_ABORT, S.ENDED),
    (S.DELEGATED, I.FAILED_CLAIMED): (A.DROP, S.DROPPING),
    (S.DELEGATED, I.FAILED_FOR_GOOD): (A.ASK_REGISTER_ABORT, S.ABORTING),
    (S.DELEGATED, I.REMIND): (A.ASK, S.DELEGATED),
    (S.DELEGATED, I.ABORT_ASKED): (A.SAY_PENDING, S.DELEGATED),
    (S.DELEGATED, I.RESOLVED): (A.NOTHING, S.RESOLVING),
    (S.RESOLVING, I.COMMITTED_ALONE): (A.SETTLE, S.SETTLING),
    (S.RESOLVING, I.COMMITTED_ALONE_ASSIGNED): (A.ANSWER_COMMITTED, S.ENDED),
    (S.RESOLVING, I.FAILED_FOR_GOOD): (A.ASK_REGISTER_ABORT, S.ABORTING),
    (S.RESOLVING, I.ABORT_ASKED): (A.SAY_PENDING, S.RESOLVING),
    (S.SETTLING, I.DURABLE): (A.NOTHING, S.ENDED),
    (S.DROPPING, I.DURABLE): (A.NOTHING, S.ENDED),
}
"""(state, input) -> (action, next state). A pair that is not here is illegal."""
