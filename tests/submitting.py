"""Transactions and commands against a real cluster: what the tests of bad input and of faults share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cluster import COORDINATOR, Cluster, eventually
from troth.cli import main
from troth.client.results import Result
from troth.operations import Transaction
from troth.v1 import coordinator_pb2, participant_pb2
from troth.words import AttemptId, Outcome

TIMEOUT_S = 10.0
"""Of a transaction that names none: far above what any of these takes, for no test is about slowness."""


def request(
    transaction: Transaction, *, wait_applied: bool = True, assigned: bool = False
) -> coordinator_pb2.SubmitRequest:
    """The message; `assigned` leaves the id to the coordinator."""
    message = transaction.to_request(wait_applied=wait_applied)
    message.timeout_s = message.timeout_s or TIMEOUT_S
    if assigned:
        message.id = ""
    return message


def submitting(cluster: Cluster, transaction: Transaction, **options: bool) -> Submitting:
    """Sends it and does not wait. Dropping what this returns cancels the call."""
    return Submitting(cluster, transaction, **options)


def submit(cluster: Cluster, transaction: Transaction, **options: bool) -> Result:
    """Sends it; how it ended, with everything applied."""
    return submitting(cluster, transaction, **options).result()


def committed(cluster: Cluster, transaction: Transaction) -> Result:
    """Sends it, and requires that it commits."""
    result = submit(cluster, transaction)
    assert result.outcome is Outcome.COMMITTED, result
    return result


def refused_with(result: Result) -> tuple[str, str]:
    """Outcome and code, as in ("ABORTED", "unique")."""
    return result.outcome.name, result.code


class Submitting:
    """A submission under way."""

    def __init__(self, cluster: Cluster, transaction: Transaction, **options: bool) -> None:
        message = request(transaction, **options)
        self._future = cluster.commands.Submit.future(message, timeout=message.timeout_s + 10)

    @property
    def done(self) -> bool:
        return bool(self._future.done())

    def result(self) -> Result:
        return Result.of(self._future.result())


def in_doubt(cluster: Cluster, name: str) -> list[participant_pb2.InDoubt]:
    """The branches in doubt at a participant."""
    return list(cluster.participant(name).InDoubt(participant_pb2.InDoubtRequest(), timeout=10).branches)


def wait_in_doubt(cluster: Cluster, name: str, count: int = 1) -> list[AttemptId]:
    """Until so many branches are in doubt there; their attempts."""
    eventually(lambda: len(in_doubt(cluster, name)) == count, f"{count} in doubt at {name}")
    return [AttemptId(branch.attempt.log, branch.attempt.number) for branch in in_doubt(cluster, name)]


def wait_locks(cluster: Cluster, name: str, *, waiting: int) -> None:
    """Until so many locks are waited for there."""

    def waited_for() -> int:
        locks = cluster.participant(name).Locks(participant_pb2.LocksRequest(), timeout=10).locks
        return sum(not lock.held for lock in locks)

    eventually(lambda: waited_for() == waiting, f"{waiting} locks waited for at {name}")


@contextmanager
def undecided(
    cluster: Cluster, transaction: Transaction, *, silent: str = "p2", wait_applied: bool = True
) -> Iterator[Submitting]:
    """A transaction that is prepared everywhere but at the participant that is `silent` for as long: it is stopped, and
    goes on at the end. It must take part in the transaction."""
    others = sorted({participant for participant, _ in transaction.operations} - {silent})
    cluster.pause(silent)
    try:
        under_way = submitting(cluster, transaction, wait_applied=wait_applied)
        for name in others:
            wait_in_doubt(cluster, name)
        yield under_way
    finally:
        cluster.resume(silent)


# The command line.


def command(*arguments: str) -> list[str]:
    """`python -m troth ...`."""
    return [sys.executable, "-m", "troth", *arguments]


def environment(cluster: Cluster) -> dict[str, str]:
    """So that a command finds the coordinator."""
    return {"PATH": "/usr/bin:/bin", "TROTH_COORDINATOR": cluster[COORDINATOR].address}


def troth(cluster: Cluster, *arguments: str, input: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    given = input.encode() if isinstance(input, str) else input
    found = subprocess.run(command(*arguments), input=given, capture_output=True, env=environment(cluster), timeout=60)
    return subprocess.CompletedProcess(found.args, found.returncode, found.stdout.decode(), found.stderr.decode())


ONCE_TOLD = """
import sys, click
from troth.cli import main
main.get_command(click.Context(main), sys.argv[1])
print(flush=True)
input()
main(sys.argv[1:])
"""


def begun(cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    """A command as a process that has all loaded, and runs once `go` tells it: for while somebody is stopped, who is
    given up after some seconds, as long as the start of a process may take on a busy machine."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", ONCE_TOLD, *arguments], env=environment(cluster), **pipes)  # type: ignore[call-overload]
    process.stdout.readline()
    return process  # type: ignore[no-any-return]


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def troth_here(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in this process, for the same reason."""
    found = CliRunner().invoke(main, arguments, env=environment(cluster), catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, found.exit_code, found.stdout, found.stderr)


def objects(text: str) -> list[dict[str, Any]]:
    """One for each line of a command's `--json`."""
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def cluster_for_module(factory: pytest.TempPathFactory, **arguments: Any) -> Iterator[Cluster]:
    """One cluster for all tests of a module. Its logs are shown when it does not come to its end in good health."""
    folder: Path = factory.mktemp("cluster")
    with Cluster(folder, **arguments) as cluster:
        yield cluster
        down = [name for name, process in cluster.processes.items() if not process.running]
        assert not down, "\n".join(f"{name} is down; its log:\n{cluster.log(name)}" for name in down)
