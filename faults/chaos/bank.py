"""The bank: transfers between accounts that are spread over the participants. No money is made or lost, and a
committed transfer has left a row with its id at every participant that it touched, any other nowhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from faults.chaos.findings import Finding
from faults.chaos.tables import ACCOUNTS, TRANSFERS
from troth import Result, Transaction
from troth.words import Outcome

ACCOUNTS_EACH = 16
BALANCE = 1000
Account = tuple[str, str]
"""Participant and name."""


class Transfer(NamedTuple):
    """What moves; the amounts sum up to nothing."""

    id: str
    moves: Mapping[Account, int]
    looks_at: Account | None
    """An account that is read besides."""

    def entries(self) -> dict[str, int]:
        """By participant, the amount of the row that it leaves there: the net change of its accounts."""
        net: Counter[str] = Counter()
        for (participant, _), by in self.moves.items():
            net[participant] += by
        return dict(net)

    def transaction(self) -> Transaction:
        """All of it, or nothing."""
        made = Transaction(self.id)
        for (participant, name), by in self.moves.items():
            made.at(participant).add(ACCOUNTS, name, "balance", by, min=0)
        for participant, amount in self.entries().items():
            made.at(participant).insert(TRANSFERS, self.id, {"amount": amount})
        if self.looks_at:
            made.at(self.looks_at[0]).read(ACCOUNTS, self.looks_at[1])
        return made


class Bank:
    """Of one run, whose accounts begin with its tag."""

    def __init__(self, tag: str, participants: Sequence[str]) -> None:
        self.participants = list(participants)
        self.accounts: list[Account] = [(p, f"{tag}-{n}") for p in participants for n in range(ACCOUNTS_EACH)]
        self.total = BALANCE * len(self.accounts)
        self.findings: list[Finding] = []
        """What reads of all accounts saw that cannot be."""
        self.looks = 0
        """Committed reads of all accounts."""

    def opening(self) -> Transaction:
        """Makes the accounts."""
        made = Transaction()
        for participant, name in self.accounts:
            made.at(participant).insert(ACCOUNTS, name, {"balance": BALANCE})
        return made

    def transfer(self, id: str, chance: random.Random) -> Transfer:
        """Between two participants mostly; some within one, some over three, some that read at a third, and some of
        more than there is."""
        count = chance.choices((1, 2, 3), (20, 60, 20))[0]
        places = chance.sample(self.participants, min(count, len(self.participants)))
        amount = 20 * BALANCE if chance.random() < 0.03 else chance.randint(1, 40)
        others = places[1:] or places
        accounts = [self._account(places[0], chance)]
        for place in others:
            accounts.append(self._account(place, chance, but=accounts[0]))
        moves = {accounts[0]: -amount * len(others), **dict.fromkeys(accounts[1:], amount)}
        rest = [p for p in self.participants if p not in places]
        looks_at = self._account(chance.choice(rest), chance) if rest and chance.random() < 0.2 else None
        return Transfer(id, moves, looks_at)

    def _account(self, participant: str, chance: random.Random, but: Account | None = None) -> Account:
        first = self.participants.index(participant) * ACCOUNTS_EACH
        return chance.choice([each for each in self.accounts[first : first + ACCOUNTS_EACH] if each != but])

    # Reads of everything.

    def look(self, id: str) -> Transaction:
        """Reads all accounts at one moment of the serial order."""
        made = Transaction(id)
        for participant, name in self.accounts:
            made.at(participant).read(ACCOUNTS, name)
        return made

    def looked(self, result: Result) -> None:
        """What a look saw: in any serial order the same total."""
        if result.outcome is not Outcome.COMMITTED or result.rows_not_kept:
            return
        self.looks += 1
        found = sum(int(str(row["balance"])) for row in result.rows if row.present)
        if found != self.total or len(result.rows) != len(self.accounts):
            self.findings.append(Finding("read skew", f"{result.id} read {found} in all accounts, not {self.total}"))

    # In the end.

    def balances(self, committed: Iterator[Transfer]) -> dict[Account, int]:
        """What is on each account after these."""
        balances = dict.fromkeys(self.accounts, BALANCE)
        for transfer in committed:
            for account, by in transfer.moves.items():
                balances[account] += by
        return balances
