"""Resources in front of a server that break one promise each, under the contract: run by
`tests/test_resource_contract.py`, as `bad.py` is.
"""

from __future__ import annotations

import pytest

from faults.conformance.outside import OutsideSubject, ServerContract
from participant.resources import No, Plan, Prepared
from participant.resources.outside import EndedElsewhere, Survey
from tests.resources.counting_server import ServerSubject
from tests.resources.server import OutsideCounters
from troth.messages import Mark
from troth.words import AttemptId


class Contract(ServerContract):
    """The contract over counters of another make."""

    make: type[OutsideCounters]
    fails: frozenset[str]

    @pytest.fixture
    def subject(self) -> OutsideSubject:
        made = type("BadSubject", (ServerSubject,), {"resource": self.make})()
        assert isinstance(made, OutsideSubject)
        return made


class FindsNothing(OutsideCounters):
    """Its survey says nothing of what is prepared."""

    async def survey(self) -> Survey:
        return (await super().survey())._replace(prepared=frozenset())


class TestFindsNothing(Contract):
    make = FindsNothing
    fails = frozenset(
        {
            "test_any_interleaving_is_the_serial_one",
            "test_nothing_of_a_branch_is_visible_before_its_commit",
            "test_two_files_at_one_server_do_not_touch_each_other",
            "test_what_is_below_the_mark_is_forgotten",
            "test_what_was_prepared_is_found_and_ends_in_a_later_incarnation",
        }
    )


class TakesUnknownForDone(OutsideCounters):
    """Seata's commonest bug: not found is success."""

    async def commit(self, attempt: AttemptId) -> None:
        try:
            await super().commit(attempt)
        except EndedElsewhere:
            return


class TestTakesUnknownForDone(Contract):
    make = TakesUnknownForDone
    fails = frozenset(
        {
            "test_an_end_by_another_hand_is_told",
            "test_two_files_at_one_server_do_not_touch_each_other",
        }
    )


class AppliesTwice(OutsideCounters):
    """It remembers what it committed, and commits it again all the same."""

    async def commit(self, attempt: AttemptId) -> None:
        name = self.namespace, attempt
        if name in self.server.finished:
            self.server.counters["a"] -= 2
        await super().commit(attempt)


class TestAppliesTwice(Contract):
    make = AppliesTwice
    fails = frozenset(
        {
            "test_a_commit_that_comes_again_is_applied_once",
        }
    )


class KnowsNoOthers(OutsideCounters):
    """Its names say nothing of the participant file."""

    async def open(self, namespace: str) -> str:
        self.namespace = "all"
        return "the counters"


class TestKnowsNoOthers(Contract):
    make = KnowsNoOthers
    fails = frozenset(
        {
            "test_two_files_at_one_server_do_not_touch_each_other",
        }
    )


class ForgetsWhatIsExcepted(OutsideCounters):
    async def forget(self, log: str, mark: Mark) -> None:
        await super().forget(log, mark._replace(excepted=()))


class TestForgetsWhatIsExcepted(Contract):
    make = ForgetsWhatIsExcepted
    fails = frozenset(
        {
            "test_what_is_below_the_mark_is_forgotten",
        }
    )


class EndsInLine(OutsideCounters):
    """Its ends wait for the same connections as its work."""

    async def commit(self, attempt: AttemptId) -> None:
        async with self.at_work:
            await super().commit(attempt)


class TestEndsInLine(Contract):
    make = EndsInLine
    fails = frozenset(
        {
            "test_those_that_wait_keep_no_commit_from_running",
        }
    )


class WaitsForEver(OutsideCounters):
    """It tries again where it should say NO."""

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        for _ in range(30):
            try:
                return await super().prepare(attempt, plan)
            except No as no:
                if not no.reason.retryable:
                    raise
        raise AssertionError("no end")


class TestWaitsForEver(Contract):
    make = WaitsForEver
    fails = frozenset(
        {
            "test_a_lock_is_waited_for_no_longer_than_told",
        }
    )


class ReadsThroughLocks(OutsideCounters):
    """Its readers do not wait for what is prepared."""

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        return self.tried(plan) if plan.read_only else await super().prepare(attempt, plan)


class TestReadsThroughLocks(Contract):
    make = ReadsThroughLocks
    fails = frozenset(
        {
            "test_a_reader_sees_what_is_committed",
        }
    )


class PreparesReaders(OutsideCounters):
    """A read-only branch becomes a prepared one, as XA has it."""

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        return await super().prepare(attempt, plan._replace(read_only=False))


class TestPreparesReaders(Contract):
    make = PreparesReaders
    fails = frozenset(
        {
            "test_a_reader_leaves_nothing",
            "test_a_reader_sees_what_is_committed",
            "test_rows_are_encoded_rows",
        }
    )


class LeavesHalfOfANo(OutsideCounters):
    def tried(self, plan: Plan) -> Prepared:
        try:
            return super().tried(plan)
        except No:
            counter, by, _ = plan.work[0]
            self.server.counters[counter] += by or 0
            raise


class TestLeavesHalfOfANo(Contract):
    make = LeavesHalfOfANo
    fails = frozenset(
        {
            "test_a_no_leaves_nothing_and_carries_its_reason",
            "test_any_interleaving_is_the_serial_one",
        }
    )
