"""The conformance kit finds what is broken: our own participant passes, and each broken one fails at the right rules.

Broken participants run the checks that must fail, and beside them others of the same rules that need no restart;
TROTH_CONFORMANCE=all runs all checks on each, which takes half an hour.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.conformance import runner, work
from faults.conformance.check import CHECKS, Check, Finding, Needs, Result
from faults.conformance.target import Target
from faults.servers import Database
from tests.broken import ANY, BROKEN, PREPARES_NOTHING, WAYS, Broken
from tests.broken_participants import NAME, Forked
from tests.cluster import eventually

ALL = os.environ.get("TROTH_CONFORMANCE") == "all"


@contextmanager
def checked(
    folder: Path, broken: str | None = None, database: Database | None = None
) -> Iterator[tuple[Forked, Target]]:
    control = Forked(folder, work.SCHEMA, broken, database=database)
    control.start()
    try:
        with runner.connected(control.address, NAME, control, host="127.0.0.1", within_s=3, quiet_s=0.02) as target:
            yield control, target
    finally:
        control.close()


def findings(target: Target, checks: list[Check], given: work.Work | None = None) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    target.within_s = 3 if len(checks) < len(CHECKS) else 10
    runner.run(target, given or runner.table_work(target, None), lambda f: found.update({f.check.name: f}), checks)
    return found


def names(found: dict[str, Finding], result: Result) -> set[str]:
    return {name for name, finding in found.items() if finding.result is result}


def test_our_participant_keeps_every_rule(tmp_path: Path) -> None:
    """And nothing is left of what the checks wrote, but what people resolved."""
    with checked(tmp_path) as (control, target):
        found = findings(target, CHECKS)
        bad = [finding for finding in found.values() if finding.result is not Result.HOLDS]
        assert not bad
        assert len(found) == len(CHECKS) + 1
        assert target.left_behind() == []
        tables = [work.TABLE, work.UNIQUE, work.BOUNDED, work.PARENT, work.CHILD, "troth_prepared", "troth_finished"]
        eventually(lambda: [name for name in tables if control.rows(name)] == [])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_participant_fails_at_the_right_rules(tmp_path: Path, name: str) -> None:
    _, violates, may = BROKEN[name]
    checks = [check for check in CHECKS if ALL or check.name in violates or _stands_beside(check, BROKEN[name])]
    with checked(tmp_path, name) as (_, target):
        found = findings(target, checks)
    violated = names(found, Result.VIOLATED) - {runner.NOTHING_LEFT.name}
    assert violates <= violated <= violates | may
    assert all(finding.expected and finding.seen for finding in found.values() if finding.result is Result.VIOLATED)


def _stands_beside(check: Check, broken: Broken) -> bool:
    """Whether it is of a rule that is broken, and must hold nevertheless."""
    rules = {each.rule for each in CHECKS if each.name in broken.violates} - {"locks"}
    return check.rule in rules and Needs.RESTART not in check.needs and broken.may != frozenset(ANY)


def test_our_participant_keeps_every_rule_in_front_of_a_server(server_database: Database, tmp_path: Path) -> None:
    """As with a file, but that adds wait for each other."""
    with checked(tmp_path, database=server_database) as (control, target):
        found = findings(target, CHECKS)
        assert names(found, Result.NOT_CHECKED) == {"adds-go-together", "an-aborted-add-counts-no-more"}
        assert [finding for finding in found.values() if finding.result is Result.VIOLATED] == []
        assert len(found) == len(CHECKS) + 1
        tables = [work.TABLE, work.UNIQUE, work.BOUNDED, work.PARENT, work.CHILD, "troth_finished"]
        eventually(lambda: [name for name in tables if control.rows(name)] == [])
        assert control.file_rows("troth_prepared") == control.file_rows("troth_finished") == []
    assert server_database.prepared() == []


def test_a_participant_that_prepares_nothing_at_its_server_is_found(server_database: Database, tmp_path: Path) -> None:
    violates = WAYS[PREPARES_NOTHING].violates
    with checked(tmp_path, PREPARES_NOTHING, server_database) as (_, target):
        found = findings(target, [check for check in CHECKS if check.name in violates])
    assert names(found, Result.VIOLATED) == violates
