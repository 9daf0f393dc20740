"""The contract of a resource class, as a pytest suite: give it a `Subject`, and every promise is a test.

    from faults.conformance.resource import ResourceContract, Subject

    class Mine(Subject):
        change = ...
        def open(self): return MyResource(...)

    class TestMine(ResourceContract):
        @pytest.fixture
        def subject(self):
            return Mine()

The promises are those of `participant.resources.Resource`; each test's docstring begins with the rule that needs it,
and `pytest --troth` lists them rule by rule. It runs in process and kills nothing: that is `troth check-participant`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import pytest

from participant.locks import Changes, LockTable
from participant.resources import INTEGER_MAX, INTEGER_MIN, ROWS_BYTES_MAX, Mode, No, Plan, Prepared, Resource
from troth.v1 import types_pb2
from troth.words import AttemptId, number_of

LOG = "0123456789abcdef"
FIRST, SECOND, THIRD = (AttemptId(LOG, number_of(1, sequence)) for sequence in (1, 2, 3))
SEEDS = range(20)
STEPS = 60
"""Of one random run."""


class Subject(ABC):
    """A resource under test over new data, with branches of known effect. Each is an encoded `Operations`."""

    change: bytes
    """Can be committed, once at least, and changes something."""
    increment: bytes
    """The same, any number of times, with increment locks alone; at least two adds to one value."""
    look: bytes
    """Only reads; at least one row comes back."""
    denied: bytes
    """Fits the resource; the data say no, after something else of it went well."""
    impossible: bytes
    """Cannot be run whatever the data."""
    aliases: tuple[tuple[bytes, bytes], ...]
    """Pairs of branches that name the same things in different words; empty when there can be none."""

    @abstractmethod
    def open(self) -> Resource:
        """The resource over the same data, in a new incarnation."""

    @abstractmethod
    def state(self) -> Any:
        """Everything that is committed, as something that can be compared."""

    @abstractmethod
    def batch(self) -> AbstractContextManager[None]:
        """One transaction of the writer."""

    def anew(self) -> Subject:
        """Another one whose data are as they were here at first."""
        return type(self)()


class ResourceContract:
    """Derive, and define a fixture `subject`. This is for a resource in the participant's own file; see also
    `OutsideContract`."""

    @pytest.fixture
    def resource(self, subject: Subject) -> Resource:
        return _opened(subject)

    # Plans.

    def test_a_plan_is_the_same_each_time(self, subject: Subject, resource: Resource) -> None:
        """Rule 8: a plan is pure, so that the same branch asks for the same locks whenever it comes."""
        before = subject.state()
        branches = (subject.change, subject.increment, subject.look)
        plans = [resource.plan(operations) for operations in branches]
        assert [resource.plan(operations) for operations in branches] == plans
        assert subject.state() == before
        _commit(subject, resource, FIRST, subject.increment)
        _commit(subject, resource, SECOND, subject.change)
        locks = [resource.plan(operations).locks for operations in branches]
        assert locks == [plan.locks for plan in plans], "locks that depend on the data"

    def test_a_plan_names_each_lock_once(self, subject: Subject, resource: Resource) -> None:
        """Locks: one name once, in its strongest mode; adds with increment locks only."""
        for operations in (subject.change, subject.increment, subject.look):
            plan = resource.plan(operations)
            names = [lock.name for lock in plan.locks]
            assert len(names) == len(set(names)) > 0
            assert all(bool(lock.adds) == (lock.mode is Mode.INCREMENT) for lock in plan.locks)

    def test_every_add_has_both_bounds(self, subject: Subject, resource: Resource) -> None:
        """Locks: 64 bits are a bound of every add, and each add counts for itself."""
        locks = resource.plan(subject.increment).locks
        adds = [add for lock in locks for add in lock.adds]
        assert all(INTEGER_MIN <= add.low <= add.high <= INTEGER_MAX for add in adds)
        numbered = types_pb2.Operations.FromString(subject.increment).operations
        assert {add.position for add in adds} <= {operation.position for operation in numbered}
        assert max(len(lock.adds) for lock in locks) >= 2, "`increment` adds twice to one value, and that is not summed"

    def test_looking_and_adding_is_exclusive(self, subject: Subject, resource: Resource) -> None:
        """Locks: two different modes wanted on one name make exclusive."""
        increments = {lock.name for lock in resource.plan(subject.increment).locks}
        looks = {lock.name for lock in resource.plan(subject.look).locks}
        both = {lock.name: lock for lock in resource.plan(subject.increment + subject.look).locks}
        assert both.keys() == increments | looks
        assert all(both[name].mode is Mode.EXCLUSIVE for name in increments & looks)

    def test_two_names_are_one_lock(self, subject: Subject, resource: Resource) -> None:
        """Locks: named as the resource itself compares them, or two branches write one thing side by side."""
        for one, other in subject.aliases:
            names = {lock.name for lock in resource.plan(one).locks}
            assert {lock.name for lock in resource.plan(other).locks} == names

    def test_a_plan_says_whether_anything_is_changed(self, subject: Subject, resource: Resource) -> None:
        """Rule 6: only a branch that changes nothing may vote READ_ONLY."""
        assert resource.plan(subject.look).read_only
        assert not resource.plan(subject.change).read_only
        assert not resource.plan(subject.increment).read_only

    def test_a_reader_locks_nothing_exclusively(self, subject: Subject, resource: Resource) -> None:
        """Rule 9: a read-only branch keeps shared locks."""
        assert {lock.mode for lock in resource.plan(subject.look).locks} == {Mode.SHARED}

    def test_what_cannot_be_run_is_said_before_any_lock(self, subject: Subject, resource: Resource) -> None:
        """Rule 2: NO with a reason, whatever the data, and not to be tried again."""
        with pytest.raises(No) as caught:
            resource.plan(subject.impossible)
        assert caught.value.reason.code
        assert caught.value.reason.message
        assert not caught.value.reason.retryable

    # Trials.

    def test_a_trial_leaves_nothing_visible(self, subject: Subject, resource: Resource) -> None:
        """Durability: nothing of a branch is visible before the decision."""
        before = subject.state()
        for operations in (subject.change, subject.increment, subject.look):
            _prepare(subject, resource, FIRST, operations)
            assert subject.state() == before

    def test_a_no_leaves_nothing_and_carries_its_reason(self, subject: Subject, resource: Resource) -> None:
        """Rule 2: a NO says why and which operation, and nothing of the branch stays."""
        before = subject.state()
        plan = resource.plan(subject.denied)
        for attempt in (resource.prepare, resource.run):
            with subject.batch(), pytest.raises(No) as caught:
                attempt(FIRST, plan)
            assert caught.value.reason.code
            assert caught.value.reason.message
            assert caught.value.reason.HasField("operation")
            assert subject.state() == before
        _commit(subject, resource, SECOND, subject.change)

    def test_rows_are_encoded_rows(self, subject: Subject, resource: Resource) -> None:
        """Rule 2: a vote carries what the reads saw, each under its operation's position."""
        rows = _prepare(subject, resource, FIRST, subject.look)[1].rows
        assert len(rows) <= ROWS_BYTES_MAX
        read = types_pb2.Rows.FromString(rows).rows
        numbered = types_pb2.Operations.FromString(subject.look).operations
        assert read
        assert {row.position for row in read} <= {operation.position for operation in numbered}
        assert _prepare(subject, resource, FIRST, subject.increment)[1].rows == b""

    def test_rows_are_what_is_committed(self, subject: Subject, resource: Resource) -> None:
        """Rule 9: a reader sees what is committed, and nothing that is only prepared."""
        before = _prepare(subject, resource, FIRST, subject.look)[1].rows
        _prepare(subject, resource, SECOND, subject.change)
        _prepare(subject, resource, THIRD, subject.increment)
        assert _prepare(subject, resource, FIRST, subject.look)[1].rows == before

    def test_values_are_those_before_the_adds_of_every_increment_lock(
        self, subject: Subject, resource: Resource
    ) -> None:
        """Locks: escrow counts from the present value of every column under an increment lock."""
        plan, prepared = _prepare(subject, resource, FIRST, subject.increment)
        wanted = {(lock.name, add.column) for lock in plan.locks for add in lock.adds}
        by = {slot: sum(a.by for k in plan.locks for a in k.adds if (k.name, a.column) == slot) for slot in wanted}
        assert all(lock.mode is Mode.INCREMENT for lock in plan.locks)
        before = prepared.values
        assert before.keys() == wanted
        with subject.batch():
            (found,) = resource.recover([(FIRST, subject.increment)])
            assert found.values == before
            resource.commit(FIRST, plan)
        after = _prepare(subject, resource, SECOND, subject.increment)[1].values
        assert after == {slot: before[slot] + by[slot] for slot in wanted}

    # Ends.

    def test_what_was_prepared_commits(self, subject: Subject, resource: Resource) -> None:
        """Rule 2: after a YES the commit never fails, and it changes what the branch says."""
        for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
            before = subject.state()
            _commit(subject, resource, attempt, operations)
            assert subject.state() != before

    def test_what_was_prepared_commits_in_a_later_incarnation(self, subject: Subject, resource: Resource) -> None:
        """Rule 6: a YES outlives the process; its locks are found again as they were."""
        for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
            before = subject.state()
            plan, prepared = _prepare(subject, resource, attempt, operations)
            later = subject.open()
            with subject.batch():
                (found,) = later.recover([(attempt, operations)])
                assert found.attempt == attempt
                assert found.plan.locks == plan.locks
                assert found.values == prepared.values
                later.commit(attempt, found.plan)
            assert subject.state() != before

    def test_all_that_was_prepared_is_found_again(self, subject: Subject, resource: Resource) -> None:
        """Rule 6: everything in doubt is recovered, and nothing else."""
        branches = [(FIRST, subject.change), (THIRD, subject.look), (SECOND, subject.increment)]
        plans = {attempt: _prepare(subject, resource, attempt, operations)[0] for attempt, operations in branches}
        before = subject.state()
        later = subject.open()
        with subject.batch():
            found = {each.attempt: each.plan.locks for each in later.recover(branches)}
        assert found == {attempt: plan.locks for attempt, plan in plans.items()}
        assert subject.state() == before

    def test_an_abort_undoes_the_trial_and_may_come_twice(self, subject: Subject, resource: Resource) -> None:
        """Rule 8: an abort may come twice, and for what was never prepared."""
        before = subject.state()
        plan, _ = _prepare(subject, resource, FIRST, subject.change)
        with subject.batch():
            resource.abort(FIRST, plan)
            resource.abort(FIRST, plan)
            resource.abort(SECOND, None)
        assert subject.state() == before
        _commit(subject, resource, SECOND, subject.change)

    def test_an_abort_in_a_later_incarnation(self, subject: Subject, resource: Resource) -> None:
        """Rule 6: what was prepared is undone as well by a process that only found it."""
        before = subject.state()
        _prepare(subject, resource, FIRST, subject.change)
        later = subject.open()
        with subject.batch():
            (found,) = later.recover([(FIRST, subject.change)])
            later.abort(FIRST, found.plan)
        assert subject.state() == before
        _commit(subject, later, SECOND, subject.change)

    def test_a_run_is_a_trial_and_a_commit(self, subject: Subject, resource: Resource) -> None:
        """Rule 13: one-phase does what prepare and commit do."""
        other = subject.anew()
        by_hand = _opened(other)
        for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
            plan = resource.plan(operations)
            with subject.batch():
                tried = resource.prepare(attempt, plan)
                assert resource.run(attempt, plan) == tried
            _commit(other, by_hand, attempt, operations)
            assert subject.state() == other.state()

    def test_increments_commute(self, subject: Subject, resource: Resource) -> None:
        """Locks: branches that only add are prepared side by side, and end in any order."""
        plans = {attempt: _prepare(subject, resource, attempt, subject.increment)[0] for attempt in (FIRST, SECOND)}
        with subject.batch():
            resource.commit(SECOND, plans[SECOND])
            resource.commit(FIRST, plans[FIRST])
        other = subject.anew()
        by_turns = _opened(other)
        for attempt in (FIRST, SECOND):
            _commit(other, by_turns, attempt, subject.increment)
        assert subject.state() == other.state()

    @pytest.mark.parametrize("seed", SEEDS)
    def test_any_interleaving_is_the_serial_one(self, subject: Subject, seed: int) -> None:
        """Rule 2: whatever the locks let run side by side, through restarts, ends as one after the other would."""
        run = _Run(subject, random.Random(seed))
        for _ in range(STEPS):
            run.step()
        run.end()
        replay = subject.anew()
        serial = _opened(replay)
        for attempt, operations in run.committed:
            plan = serial.plan(operations)
            with replay.batch():
                serial.run(attempt, plan)
        assert subject.state() == replay.state()


class OutsideContract(ResourceContract):
    """For one that is called in the same way and keeps its data elsewhere: it must be durable by itself when a method
    returns. (What a participant in front of a server promises, an `OutsideResource`, is in `outside.py`.)"""

    def test_a_commit_that_comes_again_is_applied_once(self, subject: Subject, resource: Resource) -> None:
        """Rule 5: it is told again when the process died before its own record was durable."""
        plan = _commit(subject, resource, FIRST, subject.increment)
        after = subject.state()
        for each in (resource, _opened(subject)):
            with subject.batch():
                each.commit(FIRST, plan)
            assert subject.state() == after


class _Run:
    """Random branches under a lock table, as the participant has it: prepared, committed, aborted, found again."""

    def __init__(self, subject: Subject, chance: random.Random) -> None:
        self._subject = subject
        self._chance = chance
        self._resource = _opened(subject)
        self._locks = LockTable()
        self._attempts = 0
        self._waiting: dict[AttemptId, tuple[bytes, Plan]] = {}
        self._prepared: dict[AttemptId, tuple[bytes, Plan]] = {}
        self.committed: list[tuple[AttemptId, bytes]] = []

    def step(self) -> None:
        steps = (self._arrive, self._arrive, self._arrive, self._commit, self._commit, self._abort, self._reopen)
        self._chance.choice(steps)()

    def end(self) -> None:
        """Everything that is prepared ends, and so everything that waits."""
        while self._prepared:
            self._chance.choice((self._commit, self._abort))()
        assert not self._waiting

    def _arrive(self) -> None:
        self._attempts += 1
        attempt = AttemptId(LOG, number_of(1, self._attempts))
        subject = self._subject
        operations = self._chance.choice((subject.change, subject.increment, subject.increment, subject.denied))
        self._waiting[attempt] = operations, self._resource.plan(operations)
        self._granted(self._locks.request(attempt, self._waiting[attempt][1].locks))

    def _granted(self, changes: Changes) -> None:
        """Tries what has its locks; what is hopeless has left its lines."""
        ready, hopeless = list(changes.ready), list(changes.hopeless)
        for owner, _ in hopeless:
            del self._waiting[owner]  # type: ignore[arg-type]
        for owner in ready:
            self._try(owner)

    def _try(self, attempt: Any) -> None:
        operations, plan = self._waiting.pop(attempt)
        before = self._subject.state()
        try:
            with self._subject.batch():
                prepared = _tried(self._resource, attempt, plan)
        finally:
            assert self._subject.state() == before, "a trial left something"
        if prepared is None:
            self._granted(self._locks.release(attempt, applied=False))
        else:
            self._prepared[attempt] = operations, plan
            self._granted(self._locks.learn(attempt, prepared.values))

    def _commit(self) -> None:
        if self._prepared:
            attempt = self._chance.choice(sorted(self._prepared))
            operations, plan = self._prepared.pop(attempt)
            with self._subject.batch():
                self._resource.commit(attempt, plan)
            self.committed.append((attempt, operations))
            self._granted(self._locks.release(attempt, applied=True))

    def _abort(self) -> None:
        if self._prepared:
            attempt = self._chance.choice(sorted(self._prepared))
            _, plan = self._prepared.pop(attempt)
            before = self._subject.state()
            with self._subject.batch():
                self._resource.abort(attempt, plan)
            assert self._subject.state() == before, "an abort changed something"
            self._granted(self._locks.release(attempt, applied=False))

    def _reopen(self) -> None:
        """Another life: what waited is forgotten, what is prepared takes its locks again."""
        self._resource = self._subject.open()
        records = [(attempt, operations) for attempt, (operations, _) in sorted(self._prepared.items())]
        with self._subject.batch():
            found = self._resource.recover(records)
        self._waiting.clear()
        self._locks = LockTable()
        for each in found:
            operations, plan = self._prepared[each.attempt]
            assert each.plan.locks == plan.locks, "other locks than before"
            self._prepared[each.attempt] = operations, each.plan
            self._locks.hold(each.attempt, each.plan.locks, each.values)


def _opened(subject: Subject) -> Resource:
    resource = subject.open()
    with subject.batch():
        assert resource.recover([]) == []
    return resource


def _tried(resource: Resource, attempt: AttemptId, plan: Plan) -> Prepared | None:
    try:
        return resource.prepare(attempt, plan)
    except No:
        return None


def _prepare(subject: Subject, resource: Resource, attempt: AttemptId, operations: bytes) -> tuple[Plan, Prepared]:
    plan = resource.plan(operations)
    with subject.batch():
        return plan, resource.prepare(attempt, plan)


def _commit(subject: Subject, resource: Resource, attempt: AttemptId, operations: bytes) -> Plan:
    plan, _ = _prepare(subject, resource, attempt, operations)
    with subject.batch():
        resource.commit(attempt, plan)
    return plan
