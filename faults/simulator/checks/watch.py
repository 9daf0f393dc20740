"""What is checked while a run goes on: nothing leaves a process before what it promises is on a disk, no promise is
broken later, and locks are held exactly while they must be.

Every check is made on what a process sends, queues or has made durable; the nodes' own tables are asked only who leads
an attempt and is still owed its commit, which file a lane goes to, and which branches have asked for locks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import coordinator.events as ce
import participant.events as pe
from coordinator.protocol import State
from faults.simulator.checks.counts import Counts
from faults.simulator.disks import LOG, VoteDisk
from faults.simulator.model import Work, clash
from faults.simulator.scenario import COORDINATOR
from faults.simulator.violation import Violation, require
from faults.simulator.workload import Parts
from troth.messages import (
    Abort,
    Acknowledged,
    Answered,
    Commit,
    Mark,
    OnePhase,
    OnePhaseEnded,
    Prepare,
    Question,
    Voted,
)
from troth.v1.types_pb2 import Code
from troth.words import ASSIGNED, Answer, AttemptId, Outcome, Vote

if TYPE_CHECKING:
    from faults.simulator.world import Client, Errand, World

Content: TypeAlias = tuple[tuple[str, bytes], ...]
"""Operations by participant."""

PAUSE_MAX_S = 1.0
"""Longest pause of the coordinator between two attempts of a transaction."""
AGAIN_MAX = 8
"""How often something is sent on a new lane before it is sent at most twice a second."""

ENDING = (pe.Apply, pe.Undo, pe.Resolve, pe.Contradict)
"""Jobs with which a branch's locks go."""


class Watch:
    """What was seen so far of a world, and the checks of each thing that happens in it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sent: dict[int, dict[str, Prepare | OnePhase]] = {}
        """Every prepare and one-phase request that was sent: number -> participant -> message."""
        self.sent_to: dict[tuple[int, str], VoteDisk] = {}
        """The file that each was meant for."""
        self.ids: dict[int, str] = {}
        """The transaction id of every attempt that was sent."""
        self.numbers: dict[str, list[int]] = {}
        """The attempts that were sent, by transaction id."""
        self.works: dict[bytes, Work] = {}
        """What each branch that was ever submitted does, by its operations."""
        self.told: dict[str, set[Outcome]] = {}
        """What clients heard of each id that one of them chose."""
        self.refused: set[int] = set()
        """Clients whose submission was not run."""
        self.counts = Counts()
        self._aborted: set[int] = set()
        """Attempts that some participant was told to be aborted."""
        self._overruled: set[str] = set()
        """Ids of which another writer found the register empty, and wrote ABORTED."""
        self._heard_abort: dict[tuple[int, str], int] = {}
        """The life in which a participant heard that a branch is aborted."""
        self._denied: set[tuple[int, str]] = set()
        """Branches of which their participant said NO or ABORTED."""
        self._repeats: dict[tuple[type, str, int], tuple[float, int]] = {}
        """When something was sent last, and how often at that time."""
        self._on_lane: dict[tuple[type, str, int], tuple[float, int]] = {}
        """When the lane opened on which it was sent last, and how often on that one."""
        self._until: dict[tuple[int, str], float] = {}
        """By life of the coordinator and id: the first of its clients' deadlines."""
        self.opened: dict[str, tuple[float, int]] = {}
        """How often a lane opened at the latest time."""
        self._asked: dict[str, set[int]] = {}
        """What a participant asked in the hello of its lane and was not answered yet."""
        self._arrived: dict[str, dict[int, bool]] = {}
        """Branches in the order in which they arrived at the present life of a participant; whether each may wait."""
        self._settled: dict[str, set[Content]] = {}
        """Contents of an id whose clients have heard its outcome."""
        self._waiting: dict[str, set[int]] = {}
        """Clients that wait for the outcome of an id that they chose, and not until all have applied it."""
        self._handed: dict[int, tuple[int, set[int]]] = {}
        """The life in which a commit was handed to the log, and the clients that waited for it then."""
        self._step: dict[tuple[type, int], set[str]] = {}
        """Whom what was begun in the present step of the coordinator still has to go to."""
        self._begun: set[tuple[type, int]] = set()
        """What went out for the first time, and of which attempt."""
        self._word: set[tuple[str, int]] = set()
        """Branches of which their participant has voted YES, or knew at its start that it had."""
        self._inquired: set[tuple[str, int]] = set()
        """Branches of which the coordinator was asked."""

    # What is known.

    def updating(self, number: int) -> set[str]:
        """The participants that the attempt changes something at."""
        return {name for name, m in self.sent.get(number, {}).items() if not (isinstance(m, Prepare) and m.read_only)}

    def decided(self, number: int) -> Outcome | None:
        return self._world.decision_disk.ledger.outcomes.get(number)

    def attempts_of(self, id: str) -> list[int]:
        """Every attempt of a transaction that was sent or claimed."""
        claimed = self._world.decision_disk.ledger.claimed_of.get(id, ())
        return sorted({*self.numbers.get(id, ()), *claimed})

    def by_hand(self, number: int) -> bool:
        """Whether a person decided a one-phase attempt at the coordinator."""
        ledger = self._world.decision_disk.ledger
        if not ledger.by_hand:
            return False
        alone = number in ledger.claimed or any(type(m) is OnePhase for m in self.sent.get(number, {}).values())
        return alone and any(settled == number for settled, _ in ledger.by_hand)

    def committed(self, number: int) -> bool:
        """Whether the attempt is durably committed: by the log, a person, or the participant that decided alone."""
        if self.decided(number) is Outcome.COMMITTED or self.by_hand(number):
            return True
        alone = [name for name, m in self.sent.get(number, {}).items() if type(m) is OnePhase]
        return any(number in self.sent_to[number, name].ledger.applied for name in alone)

    # The steps of the coordinator.

    def _all_at_once(self, kind: type, number: int, name: str, everybody: Callable[[], set[str]]) -> None:
        """Rule 1: what goes to one for the first time goes to all in the same step."""
        if (kind, number) not in self._step:
            self._step[kind, number] = set() if (kind, number) in self._begun else everybody()
            self._begun.add((kind, number))
        self._step[kind, number].discard(name)

    def _reached(self, number: int) -> set[str]:
        """Who is owed the commit and has a lane."""
        lanes = self._world.coordinator.lanes  # type: ignore[union-attr]
        owed = self._world.decision_disk.ledger.owed.get(number, ())
        return {
            each.participant
            for each in owed
            if each.updating and lanes[each.participant].open and lanes[each.participant].identity == each.identity
        }

    def stepped(self) -> None:
        """After each step of the coordinator."""
        for (kind, number), names in self._step.items():
            require(not names, f"rule 1: {kind.__name__} {number} does not go to {sorted(names)} with the others")
        self._step.clear()

    def lane_opened(self, name: str, questions: Iterable[int]) -> None:
        """A participant's hello arrives at the coordinator."""
        now = self._world.mono
        at, times = self.opened.get(name, (now, 0))
        self.opened[name] = now, times + 1 if at == now else 1
        self._asked[name] = set(questions)

    # Processes.

    def started(self, name: str) -> None:
        """Locks are taken again before anything is served, and what the file says is what was seen of it."""
        world = self._world
        disk, table = world.vote_disks[name], world.participants[name].lock_table
        missing = [n for n in disk.ledger.prepared.keys() - disk.ledger.adopted if AttemptId(LOG, n) not in table]
        require(not missing, f"locks: {name} starts without those of its prepared {missing}")
        require(disk.prepared() == disk.ledger.prepared.keys(), f"{name} starts with {disk.prepared()} prepared")
        require(disk.history() == disk.ledger.history, f"{name}'s file has another history than what was flushed")
        self._arrived[name] = {}
        self._word.update((name, number) for number in disk.ledger.prepared)

    def swept(self, name: str) -> None:
        """After each flush: what is prepared holds its locks, what is ended holds none."""
        world = self._world
        disk, node = world.vote_disks[name], world.participants[name]
        ending = {job.attempt.number for _, job, _ in disk.queue if type(job) in ENDING}
        table = node.lock_table
        for number in disk.ledger.prepared.keys() - disk.ledger.adopted:
            if number not in ending and AttemptId(LOG, number) not in table:
                raise Violation(f"locks: {number} is prepared at {name} and holds none")
        for _, _, _, owner in table.listing():
            number = owner.number  # type: ignore[attr-defined]
            if number in ending or number in disk.ledger.outcomes or number in disk.ledger.heuristics:
                raise Violation(f"locks: {number} is ended at {name} and holds some")

    # What is queued.

    def queues(self, name: str, job: Any, forced: bool) -> None:
        self.counts.queues(name, job, forced)
        if name != COORDINATOR:
            if self._world.vote_disks[name].server is None:
                self._begins(name, job)
            else:
                self._is_done_there(name, job)
            self._not_of_what_is_aborted(name, job)
        if type(job) is ce.Aborted:
            until = self._until.get((self._world.lives[COORDINATOR], job.id), 0.0)
            early = job.reason is not None and job.reason.retryable and self._world.mono + PAUSE_MAX_S < until
            require(not early, f"rule 11: {job.id} is aborted for good by what passes, long before its deadline")
        if type(job) is ce.Ended:
            self._answered_before(job.number)
        if type(job) is ce.Committed:
            self._handed[job.number] = self._world.lives[COORDINATOR], self._who_wait(job.id)
            require(job.number not in self._aborted, f"rule 2: {job.number} commits, and a participant heard ABORTED")
            for branch in job.branches:
                file = self.sent_to[job.number, branch.participant]
                if branch.updating and job.number not in file.ledger.voted:
                    raise Violation(f"rule 2: {job.number} commits without a durable YES of {branch.participant}")

    def _begins(self, name: str, job: Any) -> None:
        """A trial is asked for."""
        if type(job) is pe.Try or type(job) is pe.RunAlone:
            self._in_turn(name, job.attempt.number)
        if type(job) is pe.RunAlone:
            request = self.sent.get(job.attempt.number, {}).get(name)
            foreign = type(request) is OnePhase and request.incarnation != self._world.lives[name]
            require(not foreign, f"rule 13: {name} runs {job.attempt.number}, which is meant for another incarnation")

    def _not_of_what_is_aborted(self, name: str, job: Any) -> None:
        if type(job) is pe.Try and not job.read_only:
            heard = self._heard_abort.get((job.attempt.number, name))
            again = heard is not None and heard == self._world.lives[name]
            require(not again, f"rule 8: {name} tries {job.attempt.number}, of which it has heard that it is aborted")

    def _in_turn(self, name: str, number: int) -> None:
        """First come, first served: nobody is tried before who came earlier, wants the same row and still waits."""
        arrived, ledger = self._arrived[name], self._world.vote_disks[name].ledger
        arrived[number] = False
        table = self._world.participants[name].lock_table
        for earlier, waits in arrived.items():
            if earlier == number:
                return
            if waits and earlier not in ledger.adopted and AttemptId(LOG, earlier) in table:
                slot = clash(ledger.works[earlier], ledger.works[number])
                require(slot is None, f"locks: {number} is served at {name} before {earlier}, which waits for {slot}")

    # What a server outside is asked to do.

    def carries(self, name: str, job: pe.BranchJob) -> None:
        """A participant asks its server to do its part of a job, whose record comes later."""
        self._begins(name, job)
        self._not_of_what_is_aborted(name, job)

    def serves(self, errand: Errand) -> None:
        """The server is about to do its part of a job: until it has ended a branch, that is locked."""
        name, job, attempt = errand.name, errand.job, errand.job.attempt
        node = self._world.participants.get(name)
        if node is None or node.incarnation != errand.life or type(job) not in ENDING:
            return
        known = attempt in errand.server.prepared and attempt.number not in errand.server.ledger.adopted
        require(
            not known or attempt in node.lock_table, f"locks: {attempt} is not ended at {name}'s server, nor locked"
        )

    def _is_done_there(self, name: str, job: Any) -> None:
        """The record of a job is queued: the server has done its part."""
        disk, kind = self._world.vote_disks[name], type(job)
        server, attempt = disk.server, getattr(job, "attempt", None)
        assert server is not None
        if attempt is None:
            return
        done = attempt.number in disk.ledger.applied
        if kind is pe.Try:
            held = attempt in server.prepared or attempt in server.by_hand
            require(held, f"{name} records {attempt} as prepared, and its server has not prepared it")
        elif kind is pe.RunAlone or kind is pe.Apply:
            require(done, f"{name} records {attempt} as committed, and its server has not committed it")
        elif kind is pe.Undo:
            ended = server.rolled_back(attempt) and not done
            require(ended, f"{name} records {attempt} as aborted, and its server has not rolled it back")
        elif kind is pe.Resolve or kind is pe.Contradict:
            outcome = job.outcome if kind is pe.Resolve else job.done
            same = server.rolled_back(attempt) and done is (outcome is Outcome.COMMITTED)
            require(same, f"{name} records {attempt} as {outcome.name}, and its server has not ended it so")
            by_hand = attempt in server.by_hand
            require(by_hand, f"rule 12: {name} records {attempt} as resolved by hand, and nobody has done so")

    def _who_wait(self, id: str | None) -> set[int]:
        clients, life = self._world.clients, self._world.lives[COORDINATOR]
        return {client for client in self._waiting.get(id or "", ()) if clients[client].life == life}

    def _answered_before(self, number: int) -> None:
        """Rule 3: when all have acknowledged, whoever did not ask to wait for that has had its answer."""
        life, clients = self._handed.get(number, (0, set()))
        late = sorted(clients - self._world.replies.keys())
        require(not late or life != self._world.lives[COORDINATOR], f"rule 3: {late} hear of {number} only at its end")

    def decides(self, effect: ce.Decide) -> None:
        """Rule 9: when COMMITTED is decided, whoever voted READ_ONLY is still at the end of its lane as far as this
        coordinator knows, and holds its locks if so it is."""
        if effect.outcome is not Outcome.COMMITTED:
            return
        world = self._world
        assert world.coordinator is not None
        for name, part in world.coordinator.attempts[effect.number].parts.items():
            self.sent_to[effect.number, name].ledger.judged.add(effect.number)
            if part.vote is Vote.READ_ONLY:
                node, lane = world.participants.get(name), world.coordinator.lanes[name]
                known = lane.open and lane.incarnation == part.incarnation
                require(known, f"rule 9: {effect.number} is decided, and {name} is gone that voted READ_ONLY")
                there = node is not None and node.incarnation == part.incarnation
                held = node is not None and AttemptId(LOG, effect.number) in node.lock_table
                require(held or not there, f"rule 9: {effect.number} is decided, and {name} holds no locks of it")

    def rival(self, decided: ce.Decided) -> None:
        """What the register told another writer that proposed ABORTED."""
        if decided.outcome is Outcome.ABORTED:
            self._overruled.add(decided.id)

    # What the coordinator says.

    def says_down(self, name: str, message: Any) -> None:
        self.counts.says_down(name, message)
        handler = _DOWN.get(type(message))
        if handler is not None:
            handler(self, name, message)

    def _starts(self, name: str, message: Prepare | OnePhase) -> None:
        world = self._world
        assert world.coordinator is not None
        number = message.number
        attempt = world.coordinator.attempts[number]
        submission = attempt.submission
        assert submission is not None
        require(
            not self._asked.get(name), f"rule 6: {number} is sent to {name}, which waits for {self._asked.get(name)}"
        )
        self._all_at_once(type(message), number, name, lambda: set(attempt.parts))
        sent = self.sent.setdefault(number, {})
        if name in sent:
            raise Violation(f"rule 4: {type(message).__name__} {number} is sent to {name} twice")
        if not sent:
            require(number not in self.ids, f"section 4: number {number} is used twice")
            self.ids[number] = attempt.id
            self.numbers.setdefault(attempt.id, []).append(number)
        sent[name] = message
        identity = attempt.parts[name].identity
        disk = next(disk for disk in world.files[name] if disk.identity == identity)
        self.sent_to[number, name] = disk
        disk.ledger.works[number] = self.works[message.operations]
        if type(message) is OnePhase and submission.chosen and number not in world.decision_disk.ledger.claims:
            raise Violation(f"rule 13: {number} is sent before its submitted record is durable")

    def _commits(self, name: str, message: Commit) -> None:
        self._says_committed(name, message.number)
        world = self._world
        assert world.coordinator is not None
        file = self.sent_to.get((message.number, name))
        if file is not None and world.coordinator.lanes[name].identity != file.identity:
            raise Violation(f"rule 5: the commit of {message.number} goes to another file than {file.identity}")
        self._not_too_often(name, message)
        if self._handed.get(message.number, (0,))[0] == world.lives[COORDINATOR]:
            self._all_at_once(Commit, message.number, name, lambda: self._reached(message.number))

    def _says_committed(self, name: str, number: int) -> None:
        if self.decided(number) is not Outcome.COMMITTED:
            raise Violation(f"rule 2: {name} is told COMMITTED of {number} before the decision is durable")

    def _aborts(self, name: str, message: Any) -> None:
        """A branch that only looks is released by any answer, also by one that is presumed (rule 9); and a question
        that comes when the attempt is ended and its outcome dropped is answered by presumption (rule 7)."""
        number = message.number
        sent = self.sent.get(number, {}).get(name)
        if type(sent) is Prepare and sent.read_only:
            return
        if self.decided(number) is Outcome.COMMITTED:
            late = type(message) is Answered and self.sent_to[number, name].ledger.ended(number)
            require(late, f"rule 2: {name} is told ABORTED of {number}, which is committed")
        else:
            self._aborted.add(number)

    def _answers_down(self, name: str, message: Answered) -> None:
        self._asked.get(name, set()).discard(message.number)
        if message.answer is Answer.COMMITTED:
            self._says_committed(name, message.number)
        elif message.answer is Answer.ABORTED:
            self._aborts(name, message)

    def _not_too_often(self, name: str, message: Any) -> None:
        """Rule 5: with backoff. The same thing once at one time, and once more for each lane that opens then."""
        now, key = self._world.mono, (type(message), name, message.number)
        at, times = self._repeats.get(key, (now, 0))
        times = times + 1 if at == now else 1
        self._repeats[key] = now, times
        opened_at, opened = self.opened.get(name, (now, 0))
        since, count = self._on_lane.get(key, (opened_at, 0))
        count = count + 1 if since == opened_at else 1
        self._on_lane[key] = opened_at, count
        if count > AGAIN_MAX + 2 * (now - opened_at):
            raise Violation(
                f"rule 5: {type(message).__name__} {message.number} goes to {name} {count} times on one lane"
            )
        if times > 1 + (opened if opened_at == now else 0):
            raise Violation(f"rule 5: {type(message).__name__} {message.number} goes to {name} {times} times at once")

    def reminded(self) -> None:
        """Rule 5, whenever the coordinator was woken: what is owed on an open lane was sent a second ago at most."""
        coordinator, most = self._world.coordinator, self._world.coordinator_settings.retry_max_s + 1e-6
        assert coordinator is not None
        for number in self._world.decision_disk.ledger.owed:
            attempt = coordinator.attempts.get(number)
            if attempt is None or attempt.state is not State.COMMITTING:
                continue
            for name, identity in attempt.owed.items():
                lane, opened_at = coordinator.lanes[name], self.opened.get(name, (0.0, 0))[0]
                sent_at = max(self._repeats.get((Commit, name, number), (0.0, 0))[0], opened_at)
                late = lane.open and lane.identity == identity and self._world.mono - sent_at > most
                require(not late, f"rule 5: the commit of {number} is owed to {name}, and not sent again")

    def _marks(self, name: str, mark: Mark) -> None:
        """Rule 7: below it everything is ended, but for what it lists."""
        ledger = self._world.decision_disk.ledger
        for number in ledger.claims:
            if number < mark.low and number not in mark.excepted:
                raise Violation(f"rule 7: the mark {mark.low} passes the claimed {number}")
        for number, branches in ledger.owed.items():
            if number < mark.low and number not in mark.excepted:
                for branch in branches:
                    file = self.sent_to[number, branch.participant].ledger
                    settled = (number, branch.participant) in ledger.heuristics
                    if branch.updating and not file.ended(number) and not settled:
                        raise Violation(f"rule 7: the mark passes {number}, which is owed to {branch.participant}")

    def arrives(self, name: str, batch: Iterable[Any]) -> None:
        """Messages are given to a participant, which knows nothing of them yet."""
        for message in batch:
            if type(message) is Prepare or type(message) is OnePhase:
                self._arrived[name].setdefault(message.number, True)

    def hears(self, name: str, batch: Iterable[Any]) -> None:
        """A participant has taken messages in."""
        for message in batch:
            if type(message) is Abort:
                self._heard_abort[message.number, name] = self._world.lives[name]
                self._arrived[name][message.number] = False

    # What a participant says.

    def says_hello(self, name: str, questions: Collection[int]) -> None:
        """Rule 6: whenever a lane opens it asks about all that it is in doubt about."""
        disk = self._world.vote_disks[name]
        self._inquired.update((name, number) for number in questions)
        jobs = [*(job for _, job, _ in disk.queue), *self._world.at_server(name)]
        ending = {job.attempt.number for job in jobs if type(job) in ENDING}
        doubted = [n for n in disk.ledger.prepared if (name, n) in self._word and n not in ending]
        missing = [number for number in doubted if number not in questions]
        require(not missing, f"rule 6: {name} opens a lane and does not ask about {missing}")

    def asks_coordinator(self, name: str, number: int) -> None:
        self._inquired.add((name, number))

    def asks_peer(self, name: str, number: int) -> None:
        known = (name, number) in self._inquired
        require(known, f"rule 6: {name} asks a peer about {number} and has not asked the coordinator")

    def says_up(self, name: str, message: Any) -> None:
        self.counts.says_up(name, message)
        kind = type(message)
        number, ledger = getattr(message, "number", 0), self._world.vote_disks[name].ledger
        if kind is Voted and message.vote is Vote.YES:
            known = number in ledger.prepared or number in ledger.outcomes or number in ledger.heuristics
            require(known, f"rule 6: {name} votes YES for {number} without a durable record")
            self._is_held(name, number)
            self._word.add((name, number))
            self._is_locked(name, number)
        elif kind is Voted and message.vote is Vote.READ_ONLY:
            self._is_locked(name, number)
            self._reads_durably(name, number)
        elif kind is Acknowledged and message.heuristic is None:
            done = number in ledger.applied and number in ledger.history
            require(done, f"rule 6: {name} acknowledges {number}, which it has not applied")
        elif kind is Acknowledged:
            require(
                ledger.heuristics[number].known is Outcome.COMMITTED, f"rule 12: {name} acknowledges {number} too early"
            )
        elif kind is OnePhaseEnded and message.outcome is Outcome.COMMITTED:
            done = number in ledger.applied and number in ledger.history
            require(done, f"rule 13: {name} says that {number} committed and has not applied it")
        elif kind is Question:
            self._inquired.add((name, number))
        elif kind is Voted or kind is OnePhaseEnded or (kind is Answered and message.answer is Answer.ABORTED):
            self._denies(name, number, late=kind is Voted)

    def _denies(self, name: str, number: int, *, late: bool) -> None:
        """NO or ABORTED was said: then the branch is never applied. A prepare that comes again below the mark is voted
        NO whatever became of it."""
        if number not in self._world.vote_disks[name].ledger.applied:
            self._denied.add((number, name))
        else:
            require(late, f"rule 13: {name} says ABORTED of {number}, which it has applied")

    def _is_locked(self, name: str, number: int) -> None:
        world = self._world
        ledger = world.vote_disks[name].ledger
        queue = world.vote_disks[name].queue
        if AttemptId(LOG, number) in world.participants[name].lock_table or number not in ledger.prepared:
            return
        ending = any(type(job) in ENDING and job.attempt.number == number for _, job, _ in queue)
        require(ending, f"locks: {name} votes for {number} and holds no lock of it")

    def _is_held(self, name: str, number: int) -> None:
        """A YES is the word of the server too."""
        disk, attempt = self._world.vote_disks[name], AttemptId(LOG, number)
        if disk.server is None:
            return
        ledger = disk.ledger
        ended = attempt in disk.server.by_hand or number in ledger.applied or number in ledger.outcomes
        held = ended or attempt in disk.server.prepared
        require(held, f"rule 6: {name} votes YES for {number}, and its server has not prepared it")
        require(number not in ledger.adopted, f"rule 6: {name} votes YES for {number}, and does not know what it does")

    def _reads_durably(self, name: str, number: int) -> None:
        """Section 4: what it has read survives the reader: everything queued before its trial is flushed."""
        ledger = self._world.vote_disks[name].ledger
        require(
            number in ledger.tried, f"section 4: {name} votes READ_ONLY for {number} before what it read is durable"
        )

    def flushed(self, name: str) -> None:
        """After each flush, before anybody hears of it: nothing is applied that was denied."""
        if name == COORDINATOR:
            return
        ledger = self._world.vote_disks[name].ledger
        for number in ledger.newly_applied():
            if (number, name) in self._denied and number not in ledger.heuristics:
                raise Violation(f"{name} applies {number}, of which it had said NO or ABORTED")

    def vouches(self, name: str, number: int, answer: Any) -> None:
        """Rule 6: what a peer says of an attempt that is not ended is on a disk, its own or that of who told it."""
        if answer is Answer.COMMITTED:
            require(
                self.decided(number) is Outcome.COMMITTED, f"rule 6: {name} says that {number} committed; it has not"
            )
        elif answer is Answer.ABORTED and self.decided(number) is Outcome.COMMITTED:
            raise Violation(f"rule 6: {name} says that {number} is aborted; it committed")
        elif answer is Answer.ABORTED and self._may_commit(number):
            disks = self._world.every_file()
            refused = any(disk.ledger.outcomes.get(number) is Outcome.ABORTED for disk in disks)
            require(refused, f"rule 6: {name} vouches for the abort of {number}, and no refusal is durable")

    def _may_commit(self, number: int) -> bool:
        coordinator = self._world.coordinator
        attempt = coordinator.attempts.get(number) if coordinator is not None else None
        return attempt is not None and attempt.state is not State.RECORDING_ABORT

    # Clients.

    def submitted(self, client: int, id: str, parts: Parts, timeout_s: float, wait_applied: bool) -> None:
        for one in parts:
            self.works[one.operations] = one.work
        key, until = (self._world.lives[COORDINATOR], id), self._world.mono + timeout_s
        self._until[key] = min(until, self._until.get(key, until))
        if id and not wait_applied:
            self._waiting.setdefault(id, set()).add(client)

    def answers(self, client: int, asked: Client, value: Any) -> None:
        """Rule 11: an answer is a promise."""
        if type(value) is not ce.Result:
            return
        self._waiting.get(asked.id, set()).discard(client)
        chosen = bool(asked.id) and not asked.id.startswith(ASSIGNED)
        content = tuple(sorted((one.participant, one.operations) for one in asked.parts))
        if value.outcome is Outcome.REFUSED:
            self._refuses(client, asked.id, content, value)
            return
        durable = self._world.decision_disk.ledger.outcomes
        if value.outcome is Outcome.UNKNOWN:
            known = chosen and asked.id in durable
            require(not known, f"rule 10: {asked.id} is told UNKNOWN, and its outcome is durable")
            return
        overruled = value.outcome is Outcome.COMMITTED and value.id in self._overruled
        require(not overruled, f"rule 2: {value.id} is told COMMITTED, and another writer's ABORTED came first")
        numbers = self.attempts_of(value.id)
        by_hand = any(map(self.by_hand, numbers))
        if asked.id:
            heard = self.told.setdefault(asked.id, set())
            heard.add(value.outcome)
            self._settled.setdefault(asked.id, set()).add(content)
            # A person may contradict what a participant decided alone and had said before (rule 12).
            require(by_hand or len(heard) < 2, f"rule 11: {asked.id} is told both outcomes")
        if value.outcome is Outcome.ABORTED:
            known = not chosen or durable.get(asked.id) is Outcome.ABORTED
            require(known, f"rule 11: {asked.id} is told ABORTED, and that is not durable")
            done = [] if chosen or by_hand else [n for n in numbers if self.committed(n)]
            require(not done, f"rule 11: {value.id} is told ABORTED and is committed by {done}")
            return
        self._told_committed(asked, value, numbers, chosen)

    def _refuses(self, client: int, id: str, content: Content, value: ce.Result) -> None:
        self.refused.add(client)
        passing = value.reason is not None and value.reason.code in (Code.CODE_ID_EXPIRED, Code.CODE_OVERLOADED)
        known = content in self._settled.get(id, ())
        require(passing or not known, f"rule 11: {id} is REFUSED to who had heard how it ended")

    def _told_committed(self, asked: Client, value: ce.Result, numbers: list[int], chosen: bool) -> None:
        ledger = self._world.decision_disk.ledger
        committed = [n for n in numbers if self.committed(n)]
        if chosen and ledger.outcomes.get(asked.id) is not Outcome.COMMITTED and not committed:
            raise Violation(f"rule 11: {asked.id} is told COMMITTED, and it is not durable")
        readers = [n for n in numbers if n in self.sent and not self.updating(n)]
        require(committed or readers, f"rule 11: {value.id} is told COMMITTED, and nothing durable says so")
        lost = any(one.reads for one in asked.parts) and not value.rows and not value.rows_not_kept
        require(not lost, f"rule 11: {value.id} read rows, and its client hears neither them nor that they are gone")
        for number in committed:
            content = {name: message.operations for name, message in self.sent.get(number, {}).items()}
            wanted = {one.participant: one.operations for one in asked.parts}
            same = not wanted or not content or content == wanted
            require(same, f"rule 11: {asked.id} committed other content than this client asked for")
            if value.applied:
                self._all_applied(value.id, number)

    def _all_applied(self, id: str, number: int) -> None:
        missing = {name for name in self.updating(number) if not self.sent_to[number, name].ledger.ended(number)}
        settled = {name for name in missing if (number, name) in self._world.decision_disk.ledger.by_hand}
        require(missing == settled, f"rule 3: {id} is told applied; {sorted(missing)} have not")


_DOWN: dict[type, Any] = {
    Prepare: Watch._starts,
    OnePhase: Watch._starts,
    Commit: Watch._commits,
    Abort: Watch._aborts,
    Answered: Watch._answers_down,
    Question: Watch._not_too_often,
    Mark: Watch._marks,
}
