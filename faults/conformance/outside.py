"""The contract of a resource with a server of its own, as a pytest suite: give it an `OutsideSubject`.

    from faults.conformance.outside import OutsideSubject, ServerContract

    class TestMine(ServerContract):
        @pytest.fixture
        def subject(self):
            return Mine()

The promises are those of `participant.resources.outside.OutsideResource`; each test's docstring begins with the rule
that needs it, and `pytest --troth` lists them rule by rule. (`resource.py` has the contract of what is called in the
participant's writer.) What only kills and cut connections show is for each server's own tests.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec

import pytest

from participant.locks import Changes, LockTable
from participant.resources import Mode, No, Prepared
from participant.resources.outside import EndedElsewhere, OutsideResource
from troth.messages import Mark
from troth.v1 import types_pb2
from troth.words import AttemptId, Outcome, number_of

LOG, OTHER_LOG = "0123456789abcdef", "fedcba9876543210"
FIRST, SECOND, THIRD = (AttemptId(LOG, number_of(1, sequence)) for sequence in (1, 2, 3))
NAMESPACE, STRANGER = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
SEEDS = range(5)
STEPS = 40
"""Of one random run."""

P = ParamSpec("P")


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """An async test as one that pytest runs by itself, on an event loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class OutsideSubject(ABC):
    """A resource under test over new data, with branches of known effect. Each is an encoded `Operations`."""

    change: bytes
    """Can be committed, once at least, and changes something."""
    increment: bytes
    """The same, any number of times, on a row that `change` wants too."""
    other: bytes
    """Can be committed any number of times, and wants nothing that the two do."""
    look: bytes
    """Only reads what `change` changes; at least one row comes back."""
    denied: bytes
    """Fits the resource; the data say no, after something else of it went well."""
    impossible: bytes
    """Cannot be run whatever the data."""
    aliases: tuple[tuple[bytes, bytes], ...] = ()
    """Pairs of branches that name the same things in different words."""
    lock_timeout_s: float
    """Of the resources made."""
    at_work_max: int
    """How many branches such a resource works on at a time."""

    @abstractmethod
    def make(self) -> OutsideResource:
        """The resource over the same data, in a new incarnation that is not open yet."""

    @abstractmethod
    async def state(self) -> Any:
        """Everything that is committed, as something that can be compared, without waiting for a lock."""

    @abstractmethod
    def anew(self) -> OutsideSubject:
        """Another one whose data are as they were here at first."""

    @asynccontextmanager
    async def opened(self, namespace: str = NAMESPACE) -> AsyncIterator[OutsideResource]:
        """One life."""
        resource = self.make()
        await resource.open(namespace)
        try:
            yield resource
        finally:
            await resource.close()


class ServerContract:
    """Derive, and define a fixture `subject`."""

    # Plans.

    @on_a_loop
    async def test_a_plan_is_the_same_each_time(self, subject: OutsideSubject) -> None:
        """Rule 8: a plan is pure, so that the same branch asks for the same locks whenever it comes."""
        async with subject.opened() as resource:
            before = await subject.state()
            branches = (subject.change, subject.increment, subject.other, subject.look)
            plans = [resource.plan(operations) for operations in branches]
            assert [resource.plan(operations) for operations in branches] == plans
            assert await subject.state() == before
            await _committed(resource, FIRST, subject.increment)
            locks = [resource.plan(operations).locks for operations in branches]
            assert locks == [plan.locks for plan in plans], "locks that depend on the data"

    @on_a_loop
    async def test_a_plan_names_each_lock_once(self, subject: OutsideSubject) -> None:
        """Locks: one name once, in its strongest mode; there is no escrow at a server."""
        async with subject.opened() as resource:
            for operations in (subject.change, subject.increment, subject.other, subject.look):
                locks = resource.plan(operations).locks
                assert len({lock.name for lock in locks}) == len(locks) > 0
                assert Mode.INCREMENT not in {lock.mode for lock in locks}

    @on_a_loop
    async def test_two_names_are_one_lock(self, subject: OutsideSubject) -> None:
        """Locks: named as the resource itself compares them."""
        async with subject.opened() as resource:
            for one, other in subject.aliases:
                names = {lock.name for lock in resource.plan(one).locks}
                assert {lock.name for lock in resource.plan(other).locks} == names

    @on_a_loop
    async def test_a_plan_says_whether_anything_is_changed(self, subject: OutsideSubject) -> None:
        """Rule 6: only a branch that changes nothing may vote READ_ONLY, and its locks are shared (rule 9)."""
        async with subject.opened() as resource:
            look = resource.plan(subject.look)
            assert look.read_only
            assert {lock.mode for lock in look.locks} == {Mode.SHARED}
            assert not any(resource.plan(each).read_only for each in (subject.change, subject.increment, subject.other))

    @on_a_loop
    async def test_what_cannot_be_run_is_said_before_any_lock(self, subject: OutsideSubject) -> None:
        """Rule 2: NO with a reason, whatever the data, and not to be tried again."""
        async with subject.opened() as resource:
            with pytest.raises(No) as caught:
                resource.plan(subject.impossible)
            assert caught.value.reason.code
            assert caught.value.reason.message
            assert not caught.value.reason.retryable

    # Votes.

    @on_a_loop
    async def test_nothing_of_a_branch_is_visible_before_its_commit(self, subject: OutsideSubject) -> None:
        """Durability: nothing of a branch is visible before the decision."""
        before = await subject.state()
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.change)
            await prepare_branch(resource, SECOND, subject.other)
            assert await subject.state() == before
            assert (await resource.survey()).prepared == {FIRST, SECOND}
        assert await subject.state() == before

    @on_a_loop
    async def test_a_no_leaves_nothing_and_carries_its_reason(self, subject: OutsideSubject) -> None:
        """Rule 2: a NO says why and which operation, and nothing of the branch stays."""
        before = await subject.state()
        async with subject.opened() as resource:
            for attempt, tried in ((FIRST, prepare_branch), (SECOND, run_branch)):
                with pytest.raises(No) as caught:
                    await tried(resource, attempt, subject.denied)
                assert caught.value.reason.code
                assert caught.value.reason.message
                assert caught.value.reason.HasField("operation")
                assert await subject.state() == before
            assert await _held(resource) == (set(), set())
            await _committed(resource, THIRD, subject.change)

    @on_a_loop
    async def test_rows_are_encoded_rows(self, subject: OutsideSubject) -> None:
        """Rule 2: a vote carries what the reads saw, each under its operation's position."""
        async with subject.opened() as resource:
            rows = types_pb2.Rows.FromString((await prepare_branch(resource, FIRST, subject.look)).rows).rows
            assert rows
            numbered = types_pb2.Operations.FromString(subject.look).operations
            assert {row.position for row in rows} <= {operation.position for operation in numbered}
            assert (await prepare_branch(resource, SECOND, subject.increment)).rows == b""

    @on_a_loop
    async def test_a_reader_leaves_nothing(self, subject: OutsideSubject) -> None:
        """Rule 6: a read-only branch is not in doubt, keeps nothing at the server, and is remembered as nothing."""
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.look)
            assert await _held(resource) == (set(), set())
            await _committed(resource, SECOND, subject.change)

    @on_a_loop
    async def test_a_reader_sees_what_is_committed(self, subject: OutsideSubject) -> None:
        """Rule 9: a reader waits for the end of what is prepared, and sees how it ended."""
        async with subject.opened() as resource:
            before = (await prepare_branch(resource, FIRST, subject.look)).rows
            await prepare_branch(resource, SECOND, subject.increment)
            reading = asyncio.create_task(prepare_branch(resource, THIRD, subject.look))
            await asyncio.sleep(subject.lock_timeout_s / 4)
            await resource.commit(SECOND)
            assert (await reading).rows != before

    @on_a_loop
    async def test_a_lock_is_waited_for_no_longer_than_told(self, subject: OutsideSubject) -> None:
        """Rule 4: a lock wait ends before the transaction's deadline, with a NO that may be tried again."""
        before = asyncio.get_running_loop().time()
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.change)
            for attempt, tried in ((SECOND, prepare_branch), (THIRD, run_branch)):
                with pytest.raises(No) as caught:
                    await tried(resource, attempt, subject.increment)
                assert caught.value.reason.retryable
            assert asyncio.get_running_loop().time() - before < 4 * subject.lock_timeout_s + 2
            await resource.commit(FIRST)

    @on_a_loop
    async def test_those_that_wait_keep_no_commit_from_running(self, subject: OutsideSubject) -> None:
        """Rule 5: as many as can wait at the server do, for one row; the commit that ends their wait has its way."""
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.increment)
            attempts = [AttemptId(LOG, number_of(2, sequence)) for sequence in range(subject.at_work_max + 2)]
            waiting = [asyncio.create_task(_committed(resource, each, subject.increment)) for each in attempts]
            await asyncio.sleep(subject.lock_timeout_s / 4)
            async with asyncio.timeout(subject.lock_timeout_s / 2):
                await resource.commit(FIRST)
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert None in ended
            assert {error.reason.retryable for error in ended if isinstance(error, No)} <= {True}

    # Ends.

    @on_a_loop
    async def test_what_was_prepared_commits(self, subject: OutsideSubject) -> None:
        """Rule 2: after a YES the commit never fails, and changes what the branch says. Commits are kept in order."""
        async with subject.opened() as resource:
            for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment), (THIRD, subject.other)):
                before = await subject.state()
                await _committed(resource, attempt, operations)
                assert await subject.state() != before
            assert await _held(resource) == (set(), {FIRST, SECOND, THIRD})
            order = list((await resource.survey()).committed)
            assert order.index(FIRST) < order.index(SECOND), "they changed one row"

    @on_a_loop
    async def test_what_was_prepared_is_found_and_ends_in_a_later_incarnation(self, subject: OutsideSubject) -> None:
        """Rule 6: a YES outlives the process; all in doubt is found again, and nothing else."""
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.change)
            await prepare_branch(resource, SECOND, subject.other)
        before = await subject.state()
        async with subject.opened() as later:
            assert await _held(later) == ({FIRST, SECOND}, set())
            assert (await later.survey()).strays == ()
            await later.abort(SECOND)
            assert await subject.state() == before
            await later.commit(FIRST)
            assert await subject.state() != before
        async with subject.opened() as later:
            assert await _held(later) == (set(), {FIRST})

    @on_a_loop
    async def test_a_commit_that_comes_again_is_applied_once(self, subject: OutsideSubject) -> None:
        """Rule 5: it is told again when the process died before its own record was durable."""
        async with subject.opened() as resource:
            await _committed(resource, FIRST, subject.increment)
            after = await subject.state()
            await resource.commit(FIRST)
            await asyncio.gather(resource.commit(FIRST), resource.commit(FIRST))
        async with subject.opened() as later:
            await later.commit(FIRST)
        assert await subject.state() == after

    @on_a_loop
    async def test_an_abort_undoes_and_may_come_twice(self, subject: OutsideSubject) -> None:
        """Rule 8: an abort may come twice, and for what was never prepared."""
        before = await subject.state()
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.change)
            await resource.abort(FIRST)
            await resource.abort(FIRST)
            await resource.abort(SECOND)
            assert await subject.state() == before
            assert (await resource.survey()).prepared == set()
            await _committed(resource, THIRD, subject.change)

    @on_a_loop
    async def test_an_end_by_another_hand_is_told(self, subject: OutsideSubject) -> None:
        """Rule 12: a branch that is gone has not committed, one that committed is not aborted: that needs a human."""
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.change)
            await resource.abort(FIRST)
            with pytest.raises(EndedElsewhere) as caught:
                await resource.commit(FIRST)
            assert caught.value.found is Outcome.ABORTED
            await _committed(resource, SECOND, subject.increment)
            with pytest.raises(EndedElsewhere) as caught:
                await resource.abort(SECOND)
            assert caught.value.found is Outcome.COMMITTED

    @on_a_loop
    async def test_a_run_is_a_prepare_and_a_commit(self, subject: OutsideSubject) -> None:
        """Rule 13: one-phase does what prepare and commit do, and is remembered."""
        other = subject.anew()
        async with subject.opened() as resource, other.opened() as by_hand:
            for attempt, operations in ((FIRST, subject.change), (SECOND, subject.increment)):
                ran = await run_branch(resource, attempt, operations)
                assert ran == await prepare_branch(by_hand, attempt, operations)
                await by_hand.commit(attempt)
                assert await subject.state() == await other.state()
            assert (await resource.survey()).committed == {FIRST: subject.change, SECOND: subject.increment}
            with pytest.raises(EndedElsewhere):
                await resource.abort(FIRST)

    @on_a_loop
    async def test_what_is_below_the_mark_is_forgotten(self, subject: OutsideSubject) -> None:
        """Rule 7: committed attempts are remembered until the mark of their own log has passed them."""
        low, kept, high = FIRST, SECOND, AttemptId(LOG, number_of(3, 1))
        stranger = AttemptId(OTHER_LOG, low.number)
        async with subject.opened() as resource:
            for attempt in (low, kept, high, stranger):
                await _committed(resource, attempt, subject.other)
            await prepare_branch(resource, THIRD, subject.change)
            await resource.forget(LOG, Mark(high.number, (kept.number, THIRD.number)))
            assert await _held(resource) == ({THIRD}, {kept, high, stranger})
            await resource.commit(kept)
            await resource.commit(THIRD)

    @on_a_loop
    async def test_two_files_at_one_server_do_not_touch_each_other(self, subject: OutsideSubject) -> None:
        """Rule 6: what another participant file has prepared is listed with its age, and left alone."""
        async with subject.opened() as resource, subject.opened(STRANGER) as stranger:
            await prepare_branch(resource, FIRST, subject.change)
            await prepare_branch(stranger, FIRST, subject.other)
            for each in (resource, stranger):
                survey = await each.survey()
                assert survey.prepared == {FIRST}
                assert [stray.age_s >= 0 for stray in survey.strays] == [True]
            before = await subject.state()
            await stranger.abort(FIRST)
            assert await subject.state() == before
            await resource.commit(FIRST)
            assert (await stranger.survey()).committed == {}
            with pytest.raises(EndedElsewhere):
                await stranger.commit(FIRST)

    @on_a_loop
    async def test_branches_apart_run_side_by_side(self, subject: OutsideSubject) -> None:
        """Rule 1: one branch in doubt keeps no other from its whole life."""
        async with subject.opened() as resource:
            await prepare_branch(resource, FIRST, subject.change)
            await _committed(resource, SECOND, subject.other)
            await resource.commit(FIRST)

    @pytest.mark.parametrize("seed", SEEDS)
    @on_a_loop
    async def test_any_interleaving_is_the_serial_one(self, subject: OutsideSubject, seed: int) -> None:
        """Rule 2: whatever the locks let run side by side, through restarts, ends as one after the other would."""
        run = _Run(subject, random.Random(seed))
        await run.through()
        replay = subject.anew()
        async with replay.opened() as serial:
            for attempt, operations in run.committed:
                await run_branch(serial, attempt, operations)
        assert await subject.state() == await replay.state()


class _Run:
    """Random branches under a lock table, as the participant has it: prepared, run, committed, aborted, found again."""

    def __init__(self, subject: OutsideSubject, chance: random.Random) -> None:
        self._subject = subject
        self._chance = chance
        self._attempts = 0
        self.committed: list[tuple[AttemptId, bytes]] = []
        self._waiting: dict[Any, bytes] = {}
        self._prepared: dict[Any, bytes] = {}

    async def through(self) -> None:
        left = STEPS
        while left:
            async with self._subject.opened() as self._resource:
                await self._found_again()
                for _ in range(min(left, self._chance.randrange(5, 20))):
                    left -= 1
                    await self._chance.choice((self._arrive, self._arrive, self._commit, self._commit, self._abort))()
                if not left:
                    while self._prepared:
                        await self._chance.choice((self._commit, self._abort))()

    async def _found_again(self) -> None:
        """Another life: what waited is forgotten, what is prepared takes its locks again."""
        assert (await self._resource.survey()).prepared == set(self._prepared)
        self._waiting.clear()
        self._locks = LockTable()
        for attempt, operations in sorted(self._prepared.items()):
            self._locks.hold(attempt, self._resource.plan(operations).locks, {})

    async def _arrive(self) -> None:
        self._attempts += 1
        attempt = AttemptId(LOG, number_of(1, self._attempts))
        subject = self._subject
        operations = self._chance.choice(
            (subject.change, subject.increment, subject.increment, subject.other, subject.denied)
        )
        self._waiting[attempt] = operations
        await self._granted(self._locks.request(attempt, self._resource.plan(operations).locks))

    async def _granted(self, changes: Changes) -> None:
        for attempt in changes.ready:
            await self._try(attempt)

    async def _try(self, attempt: Any) -> None:
        operations = self._waiting.pop(attempt)
        one_phase = self._chance.random() < 0.2
        before = await self._subject.state()
        try:
            await (run_branch if one_phase else prepare_branch)(self._resource, attempt, operations)
        except No:
            assert await self._subject.state() == before, "a NO left something"
            await self._granted(self._locks.release(attempt, applied=False))
            return
        if one_phase:
            self.committed.append((attempt, operations))
            await self._granted(self._locks.release(attempt, applied=True))
        else:
            assert await self._subject.state() == before, "a prepared branch is visible"
            self._prepared[attempt] = operations

    async def _commit(self) -> None:
        if self._prepared:
            attempt = self._chance.choice(sorted(self._prepared))
            self.committed.append((attempt, self._prepared.pop(attempt)))
            await self._resource.commit(attempt)
            await self._granted(self._locks.release(attempt, applied=True))

    async def _abort(self) -> None:
        if self._prepared:
            attempt = self._chance.choice(sorted(self._prepared))
            del self._prepared[attempt]
            before = await self._subject.state()
            await self._resource.abort(attempt)
            assert await self._subject.state() == before, "an abort changed something"
            await self._granted(self._locks.release(attempt, applied=False))


async def prepare_branch(resource: OutsideResource, attempt: AttemptId, operations: bytes) -> Prepared:
    return await resource.prepare(attempt, resource.plan(operations))


async def run_branch(resource: OutsideResource, attempt: AttemptId, operations: bytes) -> Prepared:
    return await resource.run(attempt, operations, resource.plan(operations))


async def _committed(resource: OutsideResource, attempt: AttemptId, operations: bytes) -> None:
    await prepare_branch(resource, attempt, operations)
    await resource.commit(attempt)


async def _held(resource: OutsideResource) -> tuple[set[AttemptId], set[AttemptId]]:
    """What is prepared, and what is remembered as committed."""
    survey = await resource.survey()
    return set(survey.prepared), set(survey.committed)
