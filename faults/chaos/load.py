"""Runs both workloads against the coordinators and keeps what was answered: for every id the first outcome, and what
contradicts it later. What is not known is asked again, with the same id, until it is."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from faults.chaos.bank import Bank, Transfer
from faults.chaos.findings import Finding
from faults.chaos.lists import Lists
from troth import Client, Result, Transaction, connect
from troth.errors import Aborted, OutcomeUnknown, Refused
from troth.words import Outcome

TIMEOUT_S = 5.0
"""Of every transaction: short, so that a fault of seconds is felt."""
WAIT_S = 2.0
_TRANSFERS, _LOOKS = 0.7, 0.01
"""Parts of all transactions; the rest is of lists."""
_SENT_AGAIN, _OTHER_CONTENT = 0.03, 0.005
"""Parts of the known ids that are used again, with the same content and with other."""
_AGAIN_AFTER_S = (0.0, 4.0)
_ASKERS, _ASK_PAUSE_S = 8, 0.5


class Step(NamedTuple):
    """One transaction of a workload."""

    number: int
    id: str
    transaction: Transaction
    ended: Callable[[Result], None]
    """To be called once, with an outcome that is final."""
    other_content: bool = False
    """The id is that of another transaction, so this must be refused (rule 11)."""


class Load:
    """All transactions of one run."""

    def __init__(self, seed: int, tag: str, participants: Sequence[str]) -> None:
        self.seed = seed
        self.bank = Bank(tag, participants)
        self.lists = Lists(tag, participants)
        self.outcomes: dict[int, Outcome] = {}
        """By number: the first final one, or UNKNOWN until there is one."""
        self.findings: list[Finding] = []
        self.tally: Counter[str] = Counter()
        """First answers by outcome, and the second uses of ids by what was asked for."""
        self.reasons: Counter[str] = Counter()
        """Why transactions were aborted."""
        self.transfers: dict[int, Transfer] = {}
        """By number, all that were submitted."""
        self.unknown: set[int] = set()
        """The numbers whose outcome is not known."""
        self.open = 0
        """Submissions without an answer."""
        self._tag = tag
        self._numbers = itertools.count()
        self._stopping = False
        self._clients: list[Client] = []
        self._again: asyncio.Queue[tuple[float, Step]] = asyncio.Queue()
        """What is asked again, and not before when (loop time)."""

    # What each number stands for: a function of seed and number alone, but for what a list is known to hold.

    def _step(self, number: int) -> Step:
        chance, id = random.Random(f"load {self.seed} {number}"), f"chaos-{self._tag}-{number}"
        kind = chance.random()
        if kind < _TRANSFERS:
            transfer = self.transfers[number] = self.bank.transfer(id, chance)
            return Step(number, id, transfer.transaction(), lambda result: None)
        if kind < _TRANSFERS + _LOOKS:
            return Step(number, id, self.bank.look(id), self.bank.looked)
        step = self.lists.step(id, number, chance)
        return Step(number, id, step.transaction(), lambda result: self.lists.ended(step, result))

    # Running.

    def known(self) -> list[tuple[Transfer, Outcome]]:
        """Every transfer with its outcome."""
        return [(transfer, self.outcomes[number]) for number, transfer in self.transfers.items()]

    @asynccontextmanager
    async def connected(self, addresses: Sequence[str]) -> AsyncIterator[None]:
        """With clients of these coordinators, and with the tasks that ask again what is not known."""
        async with AsyncExitStack() as stack:
            opened = [connect(address, timeout_s=TIMEOUT_S, wait_s=WAIT_S) for address in addresses]
            self._clients = [await stack.enter_async_context(each) for each in opened]
            askers = [asyncio.create_task(self._ask()) for _ in range(_ASKERS)]
            try:
                yield
            finally:
                for asker in askers:
                    asker.cancel()
                await asyncio.gather(*askers, return_exceptions=True)

    async def open_accounts(self) -> None:
        """Raises what `submit` raises."""
        await self._clients[0].submit(self.bank.opening(), wait_applied=True, ask_again_s=30)

    async def run(self, in_flight: int) -> None:
        """Keeps so many transactions open until `stop`; returns when each was answered, if only with UNKNOWN."""
        self._stopping = False
        async with asyncio.TaskGroup() as workers:
            for _ in range(in_flight):
                workers.create_task(self._work())

    def stop(self) -> None:
        """Nothing new is submitted from now on."""
        self._stopping = True

    async def _work(self) -> None:
        while not self._stopping:
            step = self._step(next(self._numbers))
            self.outcomes[step.number] = Outcome.UNKNOWN
            self.unknown.add(step.number)
            self.open += 1
            result = await self._submit(step)
            self.open -= 1
            self.tally[result.outcome.name] += 1
            if result.outcome is Outcome.ABORTED:
                self.reasons[result.code] += 1
            self._answered(step, result)
            while step.number in self.unknown and not self._stopping:
                await asyncio.sleep(_ASK_PAUSE_S)
                self._answered(step, await self._submit(step))
            self._use_again(step)

    async def _submit(self, step: Step) -> Result:
        client = self._clients[step.number % len(self._clients)]
        try:
            return await client.submit(step.transaction)
        except (Aborted, Refused) as error:
            return error.result
        except OutcomeUnknown as error:
            return Result.unknown(step.id, error.why)

    def _answered(self, step: Step, result: Result) -> None:
        """REFUSED says nothing about an id (rule 10), so it is as little known as UNKNOWN."""
        known = self.outcomes[step.number]
        if result.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            return
        if step.other_content:
            text = f"{step.id} is taken, and with other content was told to be {result.outcome.name}"
            self.findings.append(Finding("an id for two contents", text))
        elif known is Outcome.UNKNOWN:
            self.outcomes[step.number] = result.outcome
            self.unknown.discard(step.number)
            step.ended(result)
        elif known is not result.outcome:
            text = f"{step.id} was told to be {known.name}, and later {result.outcome.name}"
            self.findings.append(Finding("contradicting answers", text))

    # Using an id again.

    def _ask_later(self, step: Step, pause_s: float) -> None:
        self._again.put_nowait((asyncio.get_running_loop().time() + pause_s, step))

    def _use_again(self, step: Step) -> None:
        chance = random.Random(f"again {self.seed} {step.number}")
        if step.number in self.unknown:
            self._ask_later(step, _ASK_PAUSE_S)
        elif chance.random() < _SENT_AGAIN:
            self.tally["sent again"] += 1
            self._ask_later(step, chance.uniform(*_AGAIN_AFTER_S))
        elif chance.random() < _OTHER_CONTENT and step.ended != self.bank.looked:
            self.tally["other content"] += 1
            other = self.bank.look(step.id)
            self._ask_later(step._replace(transaction=other, other_content=True), 0.0)

    async def _ask(self) -> None:
        while True:
            due, step = await self._again.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            self._answered(step, await self._submit(step))
            if step.number in self.unknown:
                self._ask_later(step, _ASK_PAUSE_S)
