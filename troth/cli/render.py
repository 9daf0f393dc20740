"""What commands print: messages as JSON, and as text for people. Only here, so that all commands say it alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from troth.client.results import Result, Row
from troth.operations import row_name
from troth.reasons import code_name
from troth.v1 import coordinator_pb2, participant_pb2, types_pb2
from troth.values import key_to_json, scalar_to_json, to_value, value_text, value_to_json
from troth.words import AttemptId, Outcome

STATES = {
    number: name.removeprefix("STATE_")
    for name, number in coordinator_pb2.State.items()  # As in PENDING.
}


def attempt_text(attempt: types_pb2.Attempt) -> str:
    """`troth:<log>:<epoch>:<sequence>`."""
    return str(AttemptId(attempt.log, attempt.number))


def reason_json(reason: types_pb2.Reason) -> dict[str, Any]:
    """The fields that are set, `retryable` and `message` always."""
    found: dict[str, Any] = {}
    if reason.code:
        found["code"] = code_name(reason.code)
    if reason.participant:
        found["participant"] = reason.participant
    if reason.HasField("operation"):
        found["operation"] = reason.operation
    if reason.table:
        found["table"] = reason.table
    if reason.key:
        found["key"] = key_to_json(reason.key)
    if reason.column:
        found["column"] = reason.column
    for name in ("required", "found"):
        if reason.HasField(name):
            found[name] = value_to_json(getattr(reason, name))
    return {**found, "retryable": reason.retryable, "message": reason.message}


def reason_text(reason: types_pb2.Reason) -> str:
    """One line: `below_min at p1: balance would be -5`."""
    code = code_name(reason.code) if reason.code else ""
    place = f" at {reason.participant}" if code and reason.participant else ""
    return f"{code}{place}: {reason.message}" if code else reason.message


def row_json(row: Row) -> dict[str, Any]:
    """A row that was read; no `values` when it is not there."""
    found: dict[str, Any] = {
        "participant": row.participant,
        "operation": row.position,
    }
    if row.table:  # A row of `sql` is of no table.
        found["table"] = row.table
        found["key"] = key_to_json(to_value(part) for part in row.key)
    found["present"] = row.present
    if row.values is not None:
        found["values"] = {name: scalar_to_json(value) for name, value in row.values.items()}
    return found


def row_text(row: Row) -> str:
    """`p1 accounts/alice owner=alice balance=100`, or `p1 accounts/alice absent`."""
    name = f"{row.participant} {row_name(row.table, [to_value(part) for part in row.key])}".strip()
    if row.values is None:
        return f"{name} absent"
    return " ".join([name, *(f"{column}={value_text(to_value(value))}" for column, value in row.values.items())])


def result_json(result: Result) -> dict[str, Any]:
    """One submission's outcome."""
    found: dict[str, Any] = {"id": result.id, "outcome": result.outcome.name}
    if result.reason is not None:
        found["reason"] = reason_json(result.reason)
    if result.rows:
        found["rows"] = [row_json(row) for row in result.rows]
    if result.rows_not_kept:
        found["rows_not_kept"] = True
    if result.applied:
        found["applied"] = True
    if result.attempts:
        found["attempts"] = result.attempts
    return found


def result_text(result: Result) -> str:
    """`COMMITTED <id>`, with the reason or the rows."""
    lines = [f"{result.outcome.name} {result.id}"]
    if result.reason is not None and result.outcome is not Outcome.COMMITTED:
        lines[0] += f": {reason_text(result.reason)}"
    if result.rows_not_kept:
        lines.append("  (rows were read then, and are not kept)")
    return "\n".join([*lines, *(f"  {row_text(row)}" for row in result.rows)])


def transaction_json(found: coordinator_pb2.Transaction) -> dict[str, Any]:
    """What the coordinator knows of a transaction; what it does not know is left out."""
    shown: dict[str, Any] = {"id": found.id, "state": STATES[found.state]}
    if found.HasField("reason"):
        shown["reason"] = reason_json(found.reason)
    if found.attempt.log:
        shown["attempt"] = attempt_text(found.attempt)
    for name in ("participants", "waiting_for", "heuristics"):
        if getattr(found, name):
            shown[name] = list(getattr(found, name))
    for name in ("submitted_at", "ended_at"):
        if getattr(found, name):
            shown[name] = getattr(found, name)
    if found.steps:
        shown["steps"] = [step_json(step) for step in found.steps]
    return shown


def transaction_text(found: coordinator_pb2.Transaction) -> str:
    """The state and what belongs to it, then one line for each step with its time since submission."""
    lines = [f"{STATES[found.state]} {found.id}"]
    if found.HasField("reason"):
        lines[0] += f": {reason_text(found.reason)}"
    if found.waiting_for:
        lines.append(f"  waits for {', '.join(found.waiting_for)}")
    lines += [f"  resolved by hand at {heuristic}" for heuristic in found.heuristics]
    if found.steps:
        start = found.submitted_at or found.steps[0].at
        lines.append(
            f"  submitted {time_text(start)}"
            + (f", attempt {attempt_text(found.attempt)}" if found.attempt.log else "")
        )
        lines += [
            f"  {(step.at - start) * 1000:10.1f} ms  {step.participant or 'coordinator'}: {step.what}"
            for step in found.steps
        ]
    return "\n".join(lines)


def time_text(at: float) -> str:
    """Wall-clock time in UTC, as 2026-01-31 13:45:07.123Z; empty for 0."""
    if not at:
        return ""
    return datetime.fromtimestamp(at, UTC).isoformat(" ", "milliseconds").replace("+00:00", "Z")


def step_json(step: types_pb2.Step) -> dict[str, Any]:
    """One step; `participant` only when it is one's."""
    return {"at": step.at, "what": step.what, **({"participant": step.participant} if step.participant else {})}


def in_doubt_json(participant: str, branch: participant_pb2.InDoubt, id: str) -> dict[str, Any]:
    """A branch in doubt; `id` is the transaction's, or the attempt's own when nobody could be asked."""
    shown: dict[str, Any] = {
        "participant": participant,
        "id": id,
        "attempt": attempt_text(branch.attempt),
        "age_s": round(branch.age_s, 3),
        "locked": list(branch.locked),
        "why": branch.why,
        "waiting": [attempt_text(attempt) for attempt in branch.waiting],
        "peers": [{"participant": peer.participant, "address": peer.address} for peer in branch.peers],
        "coordinator": branch.coordinator,
    }
    if branch.heuristic:
        shown["heuristic"] = Outcome(branch.heuristic).name
    if branch.read_only:
        shown["read_only"] = True
    return shown


def unresolved_json(found: coordinator_pb2.Unresolved) -> dict[str, Any]:
    """What the coordinator cannot finish now."""
    return {
        "id": found.id,
        "attempt": attempt_text(found.attempt),
        "participant": found.participant,
        "age_s": round(found.age_s, 3),
        "kind": found.kind,
        "why": found.why,
    }


def counters_json(counters: types_pb2.Counters) -> dict[str, Any]:
    """The counters of one process."""
    return {
        "forced": counters.forced,
        "lazy": counters.lazy,
        "flushes": counters.flushes,
        "sent": dict(sorted(counters.sent.items())),
        "received": dict(sorted(counters.received.items())),
        "alarms": counters.alarms,
    }


def age_text(seconds: float) -> str:
    """`850ms`, `12.3s`, `4m10s`, `2h05m`, `3d04h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def bytes_text(count: int) -> str:
    """`512 B`, `4.0 KiB`, `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def names_text(names: Iterable[str], shown: int = 4) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
