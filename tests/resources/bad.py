"""Resources that break one promise each, under the contract: run by `tests/test_resource_contract.py`, as tests of
which those that `fails` names must fail, and all others pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from faults.conformance.resource import OutsideContract, Subject
from participant.resources import Add, InDoubt, Lock, Mode, No, Plan, Prepared
from tests.resources.counting import CountersSubject, custom
from tests.resources.memory import Counters
from troth.v1 import types_pb2
from troth.words import AttemptId


class Contract(OutsideContract):
    """The contract over counters of another make."""

    make: type[Counters]
    fails: frozenset[str]
    aliases: tuple[tuple[bytes, bytes], ...] = ()

    @pytest.fixture
    def subject(self) -> Subject:
        made = type("BadSubject", (CountersSubject,), {"resource": self.make, "aliases": self.aliases})()
        assert isinstance(made, Subject)
        return made


class AppliesWithItsTrial(Counters):
    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        prepared = super().prepare(attempt, plan)
        super().commit(attempt, plan)
        return prepared


class TestAppliesWithItsTrial(Contract):
    make = AppliesWithItsTrial
    fails = frozenset(
        {
            "test_a_run_is_a_trial_and_a_commit",
            "test_a_trial_leaves_nothing_visible",
            "test_an_abort_in_a_later_incarnation",
            "test_an_abort_undoes_the_trial_and_may_come_twice",
            "test_any_interleaving_is_the_serial_one",
            "test_rows_are_what_is_committed",
            "test_values_are_those_before_the_adds_of_every_increment_lock",
            "test_what_was_prepared_commits_in_a_later_incarnation",
        }
    )


class LeavesHalfOfANo(Counters):
    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        try:
            return super().prepare(attempt, plan)
        except No:
            counter, by, _ = plan.work[0]
            self._counters[counter] += by or 0
            raise


class TestLeavesHalfOfANo(Contract):
    make = LeavesHalfOfANo
    fails = frozenset(
        {
            "test_a_no_leaves_nothing_and_carries_its_reason",
            "test_any_interleaving_is_the_serial_one",
        }
    )


class AppliesTwice(Counters):
    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        self._applied.discard(attempt)
        super().commit(attempt, plan)


class TestAppliesTwice(Contract):
    make = AppliesTwice
    fails = frozenset(
        {
            "test_a_commit_that_comes_again_is_applied_once",
        }
    )


class SumsAdds(Counters):
    def plan(self, operations: bytes) -> Plan:
        plan = super().plan(operations)
        return plan._replace(locks=tuple(map(_summed, plan.locks)))


def _summed(lock: Lock) -> Lock:
    if not lock.adds:
        return lock
    first, total = lock.adds[0], sum(add.by for add in lock.adds)
    return lock._replace(adds=(Add(first.column, total, first.low, first.high, first.position),))


class TestSumsAdds(Contract):
    make = SumsAdds
    fails = frozenset(
        {
            "test_any_interleaving_is_the_serial_one",
            "test_every_add_has_both_bounds",
        }
    )


class LooksUnderIncrement(Counters):
    """What it adds to and looks at is only under an increment lock."""

    def plan(self, operations: bytes) -> Plan:
        plan = super().plan(operations)
        adds: dict[Any, list[Add]] = {}
        for counter, by, position in plan.work:
            if by is not None:
                adds.setdefault(("counter", counter), []).append(Add("value", by, 0, 2**63 - 1, position))
        locks = [
            Lock(lock.name, Mode.INCREMENT, tuple(adds[lock.name])) if lock.name in adds else lock
            for lock in plan.locks
        ]
        return plan._replace(locks=tuple(locks))


class TestLooksUnderIncrement(Contract):
    make = LooksUnderIncrement
    fails = frozenset(
        {
            "test_looking_and_adding_is_exclusive",
        }
    )


class SaysNoWithoutAReason(Counters):
    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        try:
            return super().prepare(attempt, plan)
        except No as no:
            raise No(types_pb2.Reason(code=no.reason.code)) from no


class TestSaysNoWithoutAReason(Contract):
    make = SaysNoWithoutAReason
    fails = frozenset(
        {
            "test_a_no_leaves_nothing_and_carries_its_reason",
        }
    )


class RecoversOnlyTheFirst(Counters):
    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        return super().recover(prepared[:1])


class TestRecoversOnlyTheFirst(Contract):
    make = RecoversOnlyTheFirst
    fails = frozenset(
        {
            "test_all_that_was_prepared_is_found_again",
            "test_any_interleaving_is_the_serial_one",
        }
    )


class SaysValuesOfLater(Counters):
    """Its values have its own adds in them."""

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        prepared = super().prepare(attempt, plan)
        adds = {(lock.name, add.column): add.by for lock in plan.locks for add in lock.adds}
        return prepared._replace(values={slot: value + adds[slot] for slot, value in prepared.values.items()})


class TestSaysValuesOfLater(Contract):
    make = SaysValuesOfLater
    fails = frozenset(
        {
            "test_values_are_those_before_the_adds_of_every_increment_lock",
            "test_what_was_prepared_commits_in_a_later_incarnation",
        }
    )


class CallsEverythingReadOnly(Counters):
    def plan(self, operations: bytes) -> Plan:
        return super().plan(operations)._replace(read_only=True)


class TestCallsEverythingReadOnly(Contract):
    make = CallsEverythingReadOnly
    fails = frozenset(
        {
            "test_a_plan_says_whether_anything_is_changed",
        }
    )


class NamesAsSpelled(Counters):
    """Its counters have no case; its locks have."""

    def plan(self, operations: bytes) -> Plan:
        plan = super().plan(operations)
        return plan._replace(work=tuple((counter.lower(), by, position) for counter, by, position in plan.work))


class TestNamesAsSpelled(Contract):
    make = NamesAsSpelled
    aliases = ((custom(("add", "a", 1)), custom(("add", "A", 1))),)
    fails = frozenset(
        {
            "test_two_names_are_one_lock",
        }
    )


class LocksByTheData(Counters):
    """It locks a counter only while there is something in it to lose."""

    def plan(self, operations: bytes) -> Plan:
        plan = super().plan(operations)
        locks = [lock for lock in plan.locks if lock.name[1] != "b" or self._counters["b"] <= 20]
        return plan._replace(locks=tuple(locks))


class TestLocksByTheData(Contract):
    make = LocksByTheData
    fails = frozenset(
        {
            "test_a_plan_is_the_same_each_time",
            "test_any_interleaving_is_the_serial_one",
            "test_values_are_those_before_the_adds_of_every_increment_lock",
        }
    )


class LooksAtNoBound(Counters):
    """Its trial does not try; its commit does."""

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        kept = dict(self._counters)
        self._counters.update(dict.fromkeys(kept, 1000))
        try:
            return super().prepare(attempt, plan)
        finally:
            self._counters.update(kept)

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        super().prepare(attempt, plan)
        super().commit(attempt, plan)


class TestLooksAtNoBound(Contract):
    make = LooksAtNoBound
    fails = frozenset(
        {
            "test_a_no_leaves_nothing_and_carries_its_reason",
            "test_any_interleaving_is_the_serial_one",
            "test_values_are_those_before_the_adds_of_every_increment_lock",
            "test_what_was_prepared_commits_in_a_later_incarnation",
        }
    )


class CommitsWhatItRemembers(Counters):
    """Its commit needs what its trial kept in memory."""

    def __init__(self, counters: dict[str, int], applied: set[AttemptId]) -> None:
        super().__init__(counters, applied)
        self._tried: dict[AttemptId, Plan] = {}

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        self._tried[attempt] = plan
        return super().prepare(attempt, plan)

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        super().commit(attempt, self._tried[attempt])


class TestCommitsWhatItRemembers(Contract):
    make = CommitsWhatItRemembers
    fails = frozenset(
        {
            "test_a_commit_that_comes_again_is_applied_once",
            "test_any_interleaving_is_the_serial_one",
            "test_what_was_prepared_commits_in_a_later_incarnation",
        }
    )


class WritesWhatItTried(Counters):
    """It keeps the sums of its trial and writes them at its commit, whatever came between."""

    def __init__(self, counters: dict[str, int], applied: set[AttemptId]) -> None:
        super().__init__(counters, applied)
        self._sums: dict[AttemptId, dict[str, int]] = {}

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        prepared = super().prepare(attempt, plan)
        self._sums[attempt] = {
            name: self._counters[name] + sum(by or 0 for counter, by, _ in plan.work if counter == name)
            for name, _, _ in plan.work
        }
        return prepared

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        if attempt not in self._applied and attempt in self._sums:
            self._counters.update(self._sums[attempt])
            self._applied.add(attempt)
        super().commit(attempt, plan)


class TestWritesWhatItTried(Contract):
    make = WritesWhatItTried
    fails = frozenset(
        {
            "test_any_interleaving_is_the_serial_one",
            "test_increments_commute",
        }
    )


class KeepsWhatWasAborted(Counters):
    """An aborted attempt goes on holding what it tried to take."""

    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        if plan is not None:
            self._counters["a"] -= 1


class TestKeepsWhatWasAborted(Contract):
    make = KeepsWhatWasAborted
    fails = frozenset(
        {
            "test_an_abort_in_a_later_incarnation",
            "test_an_abort_undoes_the_trial_and_may_come_twice",
            "test_any_interleaving_is_the_serial_one",
        }
    )
