"""What every resource promises, as tests: derive from `ResourceContract` and give it a `Subject` fixture.

The promises are those of `participant.resources.Resource`; a resource of a user's own is tested by the same class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import pytest

from participant.resources import Mode, No, Plan, Resource
from troth.v1 import types_pb2
from troth.words import AttemptId

FIRST = AttemptId("0123456789abcdef", 1 << 40 | 1)
SECOND = AttemptId("0123456789abcdef", 1 << 40 | 2)


class Subject(ABC):
    """A resource under test, with branches of known effect. Each is an encoded `Operations`."""

    change: bytes
    """Can be committed, and changes something."""
    increment: bytes
    """The same, with increment locks alone; at least two adds to one value."""
    look: bytes
    """Only reads; at least one row comes back."""
    denied: bytes
    """Fits the resource; the data say no, after something else of it went well."""
    impossible: bytes
    """Cannot be run whatever the data."""

    @abstractmethod
    def open(self) -> Resource:
        """The resource over the same data, in a new incarnation."""

    @abstractmethod
    def state(self) -> Any:
        """Everything that is committed, as something that can be compared."""

    @abstractmethod
    def batch(self) -> AbstractContextManager[None]:
        """One transaction of the writer."""


class ResourceContract:
    """Derive, and define a fixture `subject`."""

    @pytest.fixture
    def resource(self, subject: Subject) -> Resource:
        resource = subject.open()
        with subject.batch():
            assert resource.recover([]) == []
        return resource

    def test_a_plan_is_the_same_each_time_and_names_each_lock_once(self, subject: Subject, resource: Resource) -> None:
        for operations in (subject.change, subject.increment, subject.look):
            plan = resource.plan(operations)
            assert resource.plan(operations) == plan
            names = [lock.name for lock in plan.locks]
            assert len(names) == len(set(names)) > 0
            assert all(bool(lock.adds) == (lock.mode is Mode.INCREMENT) for lock in plan.locks)

    def test_a_plan_says_whether_anything_is_changed(self, subject: Subject, resource: Resource) -> None:
        assert resource.plan(subject.look).read_only
        assert not resource.plan(subject.change).read_only
        assert not resource.plan(subject.increment).read_only

    def test_what_cannot_be_run_is_said_before_any_lock(self, subject: Subject, resource: Resource) -> None:
        with pytest.raises(No) as caught:
            resource.plan(subject.impossible)
        assert caught.value.reason.code
        assert not caught.value.reason.retryable

    def test_a_trial_leaves_nothing_visible(self, subject: Subject, resource: Resource) -> None:
        before = subject.state()
        for operations in (subject.change, subject.increment, subject.look):
            with subject.batch():
                resource.prepare(FIRST, resource.plan(operations))
            assert subject.state() == before

    def test_a_no_leaves_nothing_and_carries_its_reason(self, subject: Subject, resource: Resource) -> None:
        before = subject.state()
        plan = resource.plan(subject.denied)
        for attempt in (resource.prepare, resource.run):
            with subject.batch(), pytest.raises(No) as caught:
                attempt(FIRST, plan)
            assert caught.value.reason.code
            assert caught.value.reason.message
            assert caught.value.reason.HasField("operation")
            assert subject.state() == before

    def test_what_was_prepared_commits(self, subject: Subject, resource: Resource) -> None:
        for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
            before = subject.state()
            plan = self._prepare(subject, resource, attempt, operations)
            with subject.batch():
                resource.commit(attempt, plan)
            assert subject.state() != before

    def test_what_was_prepared_commits_in_a_later_incarnation(self, subject: Subject, resource: Resource) -> None:
        for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
            before = subject.state()
            prepared = self._prepare(subject, resource, attempt, operations)
            later = subject.open()
            with subject.batch():
                (found,) = later.recover([(attempt, operations)])
                assert found.attempt == attempt
                assert found.plan.locks == prepared.locks
                later.commit(attempt, found.plan)
            assert subject.state() != before

    def test_an_abort_undoes_the_trial_and_may_come_twice(self, subject: Subject, resource: Resource) -> None:
        before = subject.state()
        plan = self._prepare(subject, resource, FIRST, subject.change)
        with subject.batch():
            resource.abort(FIRST, plan)
            resource.abort(FIRST, plan)
            resource.abort(SECOND, None)
        assert subject.state() == before
        self._prepare(subject, resource, SECOND, subject.change)

    def test_a_run_is_a_trial_and_a_commit(self, subject: Subject, resource: Resource) -> None:
        for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
            before = subject.state()
            plan = resource.plan(operations)
            with subject.batch():
                tried = resource.prepare(attempt, plan)
                assert resource.run(attempt, plan) == tried
            assert subject.state() != before

    def test_rows_are_encoded_rows(self, subject: Subject, resource: Resource) -> None:
        with subject.batch():
            tried = resource.prepare(FIRST, resource.plan(subject.look))
            assert types_pb2.Rows.FromString(tried.rows).rows
            assert resource.prepare(FIRST, resource.plan(subject.increment)).rows == b""

    def test_values_are_those_before_the_adds_of_every_increment_lock(
        self, subject: Subject, resource: Resource
    ) -> None:
        plan = resource.plan(subject.increment)
        wanted = {(lock.name, add.column) for lock in plan.locks for add in lock.adds}
        by = {slot: sum(a.by for k in plan.locks for a in k.adds if (k.name, a.column) == slot) for slot in wanted}
        assert all(lock.mode is Mode.INCREMENT for lock in plan.locks)
        with subject.batch():
            before = resource.prepare(FIRST, plan).values
            assert before.keys() == wanted
            (found,) = resource.recover([(FIRST, subject.increment)])
            assert found.values == before
            resource.commit(FIRST, plan)
            after = resource.prepare(SECOND, plan).values
        assert after == {slot: before[slot] + by[slot] for slot in wanted}

    @staticmethod
    def _prepare(subject: Subject, resource: Resource, attempt: AttemptId, operations: bytes) -> Plan:
        plan = resource.plan(operations)
        with subject.batch():
            resource.prepare(attempt, plan)
        return plan
