"""What is measured and what it is measured against, each behind the same few calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import ClassVar, NamedTuple

from bench.ledger import Ledger, Rows
from bench.load import Load
from bench.workloads import Workload
from troth.errors import TrothError


class Failed(TrothError):
    """What was measured is not to be trusted: a process died, or the rows are not what was answered."""


class Counts(NamedTuple):
    """Since the contender was started; None for what it cannot say."""

    forced: int | None = None
    """Log records that something waited for."""
    flushes: int | None = None
    """fdatasyncs of its own logs, not of those of database servers (`Contender.syncs_a_server`)."""
    messages: int | None = None
    """Between the processes that take part, both ways; the client's own are not counted unless it coordinates."""


class Contender(ABC):
    """One life: started for one workload, run as often as wanted, closed. Everything it answers with is durable."""

    name: ClassVar[str]
    participants_max: ClassVar[int | None] = None
    in_flight_max: ClassVar[int | None] = None
    """As many transactions are open when more are asked for."""
    levels: ClassVar[tuple[int, ...] | None] = None
    """The only levels at which it says something; at others it is measured when it is asked for by name."""

    @classmethod
    def missing(cls) -> str:
        """What this machine lacks to run it; empty when nothing."""
        return ""

    @classmethod
    def unable(cls, workload: Workload) -> str:
        """Why it cannot do a workload; empty when it can."""
        if cls.participants_max is not None and workload.participants > cls.participants_max:
            return f"it has {cls.participants_max} servers, and {workload.participants} participants are needed"
        return ""

    @abstractmethod
    async def start(self, folder: Path, workload: Workload) -> None:
        """Starts its processes in this folder, which is empty, and makes and fills the tables."""

    @abstractmethod
    def connected(self, in_flight: int) -> AbstractAsyncContextManager[None]:
        """With what a client needs for so many transactions at once: opening it is not measured."""

    @abstractmethod
    async def run(self, load: Load) -> None:
        """Keeps `in_flight` steps of the load open until it has no more; returns when all are answered."""

    @abstractmethod
    async def settled(self) -> None:
        """Returns when everything that was answered is applied everywhere."""

    @abstractmethod
    async def rows(self, participant: int) -> Rows:
        """What is in the tables there."""

    async def complaints(self, ledger: Ledger) -> list[str]:
        """What the tables do not hold as they must, in sentences; `ledger` has all that was answered."""
        return ledger.complaints({at: await self.rows(at) for at in ledger.participants})

    @abstractmethod
    def processes(self) -> Mapping[str, int]:
        """Process ids by name, without the client, which is this process. One with children stands for all of them."""

    @abstractmethod
    def dead(self) -> list[str]:
        """What ended by itself, with why as far as that is known."""

    @abstractmethod
    async def counts(self) -> Counts:
        """Of all its processes together. Called while connected and settled."""

    async def syncs_a_server(self) -> float | None:
        """How often each of its database servers has forced its log since the contender was started, on average; None
        when it has none, or when they do not tell. May wait until they have counted. Called while nothing runs."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Ends everything, also what was only half started."""


_CONTENDERS = {
    "troth": "bench.on_troth:OnTroth",
    "unary": "bench.on_unary:OnUnary",
    "bare": "bench.on_bare:OnBare",
    "postgresql": "bench.on_postgresql:OnPostgreSQL",
    "troth-postgresql": "bench.on_troth_at_servers:OnTrothAtPostgreSQL",
    "mariadb": "bench.on_mariadb:OnMariaDB",
    "troth-mariadb": "bench.on_troth_at_servers:OnTrothAtMariaDB",
}
NAMES = tuple(_CONTENDERS)


def contender(name: str) -> type[Contender]:
    """The class, loaded when it is wanted. Raises ImportError when a package that it needs is missing."""
    module, _, attribute = _CONTENDERS[name].partition(":")
    found: type[Contender] = getattr(import_module(module), attribute)
    return found


def lacking(name: str) -> str:
    """Why a contender cannot run here; empty when it can."""
    try:
        return contender(name).missing()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed (pip install 'troth[bench]')"
    except ImportError as error:
        return " ".join(str(error).split())  # as psycopg says when it is there without its library
