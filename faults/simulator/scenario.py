"""Everything that a seed decides before a run begins: who is there, what is asked of them, what goes wrong, and how the
network and the disks behave. What is left to chance while it runs is drawn from the same seed (`Simulation`).

A scenario is plain data, so a failing one can be made smaller by leaving out asks and faults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from coordinator.settings import CoordinatorSettings
from faults.simulator import workload
from faults.simulator.workload import Parts, part
from participant.settings import ParticipantSettings

COORDINATOR = "coordinator"
BEGIN = 1000.0
"""The time at which a run begins, on every clock."""

FEATURES = {
    "crashes": 0.5,
    "storm": 0.15,
    "pauses": 0.25,
    "cuts": 0.3,
    "breaks": 0.3,
    "islands": 0.15,
    "sieges": 0.2,
    "people": 0.2,
    "files": 0.12,
    "full": 0.15,
    "expiry": 0.2,
    "marks": 0.35,
    "shuffled": 0.25,
    "ghosts": 0.25,
    "lossy": 0.4,
    "slow register": 0.3,
    "stalls": 0.2,
    "hurried": 0.3,
}
"""What a run may be about, and how often it is."""

OUTSIDE = 0.5
"""How often some participants' data are at servers."""
AT_SERVERS = {"servers": 0.5, "slow servers": 0.3, "hands": 0.25}
"""What such a run may be about beside: drawn apart, as all of it, so that other runs stay as they are."""


class Ask(NamedTuple):
    """Something that is asked of the coordinator at a time of the run."""

    at: float
    kind: str
    """submit; abort; person (settles something that is open, or clears it)."""
    id: str = ""
    """Of an abort: "" for one that the coordinator assigned."""
    parts: Parts = ()
    timeout_s: float = 0.0
    wait_applied: bool = False
    patience: int = 0
    """How often the client asks again while it does not know."""
    again_s: float | None = None
    """When it asks once more though it knows."""


class Fault(NamedTuple):
    """Something that goes wrong at a time of the run, or at the nth time that something happens to a process."""

    at: float
    kind: str
    """crash, pause, cut, break (of a lane), island (cut off from the coordinator), full (disk), stall (disk), swap
    (of the file), person (resolves something there); at its server: server (dies), slow, hand (ends something)."""
    who: str
    for_s: float = 0.0
    other: str = ""
    """Of a cut: towards whom."""
    both: bool = False
    """Of a cut: also the other way."""
    when: str = ""
    """Of a crash: "" at the time, else at the nth "flushed", "reported", "departs", "receives", "served" (its server
    has done its part of a job) or "carried" (it has heard of that) after it."""
    nth: int = 0


@dataclass(frozen=True)
class Weather:
    """How the network and the disks are. Times in seconds, the rest are chances."""

    latency_s: float
    tail: float
    """Of a delay fifty times as long."""
    loss: float
    doubled: float
    flush_s: float
    shuffled: bool
    """Messages of one lane overtake each other."""
    ghosts: bool
    """Messages of a lost lane may arrive on a later one to the same file."""
    register_s: float
    """How long the decision register takes."""
    server_s: float
    """How long a call takes to a server, and back."""


@dataclass(frozen=True)
class Scenario:
    """One run."""

    seed: int
    names: tuple[str, ...]
    features: tuple[str, ...]
    style: str
    coordinator: CoordinatorSettings
    participant: ParticipantSettings
    weather: Weather
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]
    calm: bool
    """Nothing goes wrong, and nothing is slow: what is forced and sent can be counted."""
    outside: tuple[str, ...]
    """Participants whose data are at a server."""
    chance: int = 0
    """Which of the many runs of this scenario: what is drawn while it runs depends on it too."""

    def keeping(self, asks: frozenset[int], faults: frozenset[int], chance: int) -> Scenario:
        """The same with only these asks and faults, by position."""
        return replace(
            self,
            chance=chance,
            asks=tuple(ask for i, ask in enumerate(self.asks) if i in asks),
            faults=tuple(fault for i, fault in enumerate(self.faults) if i in faults),
        )


def scenario(seed: int, transactions: int = 200, participants: tuple[int, int] = (2, 5)) -> Scenario:
    """What the seed means."""
    random = Random(f"scenario {seed}")
    calm = random.random() < 0.08
    features = () if calm else tuple(each for each, chance in FEATURES.items() if random.random() < chance)
    names = tuple("abcdefghij"[: random.randint(*participants)])
    style = random.choice(["any", "any", *workload.STYLES]) if "full" not in features else "notes"
    gap_s = random.choice([0.002, 0.01, 0.04]) if not calm else 0.05
    asks = _asks(random, features, style, names, transactions, gap_s)
    made = Scenario(
        seed=seed,
        names=names,
        features=features,
        style=style,
        coordinator=_coordinator(random, features),
        participant=_participant(random, features),
        weather=_weather(random, features, calm),
        asks=asks,
        faults=_faults(random, features, names, transactions, transactions * gap_s),
        calm=calm,
        outside=(),
    )
    return _with_servers(made, Random(f"servers {seed}"), transactions)


def _with_servers(made: Scenario, random: Random, transactions: int) -> Scenario:
    """The same, perhaps with participants whose data are at servers, and what goes wrong there."""
    outside = tuple(name for name in made.names if random.random() < 2 / 3)
    if random.random() >= OUTSIDE or not outside:
        return made
    features = () if made.calm else tuple(each for each, chance in AT_SERVERS.items() if random.random() < chance)
    last = made.asks[-1].at + 0.5
    faults = list(made.faults)

    def some(feature: str, often: float) -> range:
        count = 1 + int(random.expovariate(1 / (often * (transactions / 200) ** 0.7)))
        return range(count if feature in (*made.features, *features) else 0)

    def add(kind: str, for_s: list[float], when: tuple[str, ...] = ("",)) -> None:
        at, nth = random.uniform(BEGIN + 0.05, last), random.randint(1, 4)
        faults.append(Fault(at, kind, random.choice(outside), random.choice(for_s), when=random.choice(when), nth=nth))

    for _ in some("crashes", 8):
        add("crash", [0.02, 0.3, 1.5], ("served", "carried"))
    for _ in some("servers", 4):
        add("server", [0.02, 0.5, 3.0])
    for _ in some("slow servers", 4):
        add("slow", [0.1, 1.0, 4.0])
    for _ in some("hands", 8):
        add("hand", [0.0])
    return replace(
        made,
        outside=outside,
        features=(*made.features, "outside", *features),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        participant=replace(made.participant, look_interval_s=random.choice([0.05, 0.5, 5.0])),
        weather=replace(made.weather, server_s=0.0003 if made.calm else random.choice([0.0003, 0.003, 0.02])),
    )


def _coordinator(random: Random, features: tuple[str, ...]) -> CoordinatorSettings:
    expiring, marks = "expiry" in features, "marks" in features
    return CoordinatorSettings(
        vote_timeout_s=random.choice([0.1, 0.5, 2.0]) if "hurried" in features else 10.0,
        mark_interval_s=0.01 if marks else 0.1,
        mark_age_s=0.2 if marks else 1.0,
        answers_kept_s=5.0 if expiring else 1e9,
        answers_max=40 if expiring else 1_000_000,
        expire_interval_s=0.1 if expiring else 1e6,
        in_flight_max=12 if "pauses" in features else 10_000,
    )


def _participant(random: Random, features: tuple[str, ...]) -> ParticipantSettings:
    """Who is cut off asks soon, and asks peers too."""
    islands = "islands" in features or "sieges" in features
    return ParticipantSettings(
        lock_timeout_s=random.choice([0.5, 2.0, 5.0]),
        inquiry_after_s=0.05 if islands else random.choice([0.3, 1.0]) if features else 1.0,
        inquiry_max_s=0.05 if islands else random.choice([0.05, 0.3, 1.0]),
        ask_peers_after_s=0.05 if islands else random.choice([0.2, 2.0]),
        forget_interval_s=random.choice([0.05, 1.0]),
    )


def _weather(random: Random, features: tuple[str, ...], calm: bool) -> Weather:
    lossy = "lossy" in features
    return Weather(
        latency_s=0.0003 if calm else random.choice([0.0003, 0.002, 0.02]),
        tail=0.0 if calm else random.choice([0.0, 0.01, 0.05]),
        loss=random.choice([0.005, 0.03]) if lossy else 0.0,
        doubled=random.choice([0.02, 0.1]) if lossy else 0.0,
        flush_s=0.0003 if calm else 0.02 if "full" in features else random.choice([0.0003, 0.003, 0.02]),
        shuffled="shuffled" in features,
        ghosts="ghosts" in features,
        register_s=0.01 if "slow register" in features else 0.0,
        server_s=0.0,
    )


def _asks(
    random: Random, features: tuple[str, ...], style: str, names: tuple[str, ...], transactions: int, gap_s: float
) -> tuple[Ask, ...]:
    asks: list[Ask] = []
    known: list[tuple[str, Parts]] = []
    at = BEGIN + 0.1
    for n in range(transactions):
        at += random.expovariate(1 / gap_s)
        kind = random.random()
        if known and kind < 0.15:
            id, parts = random.choice(known[-20:])
            if random.random() < 0.2:
                parts = _parts(random, style, names)
        else:
            id, parts = "", _parts(random, style, names)
            if kind < 0.7:
                id = _uuid(random, at) if "expiry" in features else f"id-{n}"
                known.append((id, parts))
        asks.append(
            Ask(
                at,
                "submit",
                id,
                parts,
                timeout_s=random.choice([0.5, 3.0, 10.0, 30.0]) if features else 30.0,
                wait_applied=random.random() < 0.2,
                patience=random.choice([0, 2, 10]) if id else 0,
                again_s=random.expovariate(1.0) if id and random.random() < 0.15 else None,
            )
        )
        if random.random() < 0.04 and features and known:
            id = "" if random.random() < 0.3 else random.choice(known[-5:])[0]
            asks.append(Ask(at + random.expovariate(50), "abort", id))
        if "people" in features and random.random() < 0.25:
            asks.append(Ask(at + random.expovariate(5), "person"))
    return tuple(sorted(asks, key=lambda ask: ask.at))


def _parts(random: Random, style: str, names: tuple[str, ...]) -> Parts:
    """Half of all runs mix the styles; in the others most transactions are of one."""
    own = style if style != "any" and random.random() < 0.8 else random.choice(list(workload.STYLES))
    works = workload.STYLES[own](random, names)
    return tuple(part(name, work, random) for name, work in works.items())


def _uuid(random: Random, at: float) -> str:
    """A UUIDv7 of about that time, some of it behind, so that some are near the horizon when they are submitted."""
    text = f"{int((at + random.uniform(-4.0, 1.0)) * 1000):012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-{random.randrange(16**12):012x}"


def _faults(
    random: Random, features: tuple[str, ...], names: tuple[str, ...], transactions: int, length_s: float
) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    everybody = (COORDINATOR, *names)

    def some(feature: str, often: float) -> range:
        """How many; more in a longer run, but not in proportion."""
        if feature not in features:
            return range(0)
        return range(1 + int(random.expovariate(1 / (often * (transactions / 200) ** 0.7))))

    def when() -> float:
        return BEGIN + 0.05 + random.random() * (length_s + 0.5)

    def pause_s() -> float:
        return random.choice([0.02, 0.3, 1.5, 4.0])

    for _ in some("crashes", 6):
        moment = random.choice(["", "flushed", "reported", "departs", "receives"])
        who = random.choice(everybody)
        faults.append(Fault(when(), "crash", who, pause_s(), when=moment, nth=random.randint(1, 4)))
    for _ in some("storm", 25):
        faults.append(Fault(when(), "crash", random.choice(names), random.choice([0.0, 0.02, 0.1])))
    for _ in some("pauses", 2):
        faults.append(Fault(when(), "pause", random.choice(everybody), random.choice([0.05, 0.5, 3.0, 7.0])))
    for _ in some("cuts", 2):
        who, other = random.sample(everybody, 2)
        faults.append(Fault(when(), "cut", who, random.choice([0.1, 1.0, 4.0, 9.0]), other, both=random.random() < 0.6))
    for _ in some("breaks", 5):
        faults.append(Fault(when(), "break", random.choice(names)))
    for _ in some("islands", 5):
        faults.append(Fault(when(), "island", random.choice(names), random.choice([0.2, 0.5, 1.5])))
    for n in some("sieges", 5):
        early, late = random.sample(names, 2)
        faults += _siege(n % 3, when(), early, late, features)
    for _ in some("full", 10):
        faults.append(Fault(when(), "full", random.choice(everybody), pause_s()))
    for _ in some("stalls", 2):
        faults.append(Fault(when(), "stall", random.choice(everybody), random.choice([0.2, 1.0, 3.0])))
    for _ in some("files", 3):
        faults.append(Fault(when(), "swap", random.choice(names), random.choice([0.02, 0.3])))
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _siege(kind: int, at: float, early: str, late: str, features: tuple[str, ...]) -> list[Fault]:
    """One participant is cut off while it is in doubt, and only its peers can be asked."""
    if kind == 0:
        # The other one votes late and its vote gets through later still: nobody has decided, for long or for short.
        faults = [Fault(at, "stall", late, 0.15), Fault(at + 0.03, "island", early, 0.8)]
        faults.append(Fault(at + 0.06, "cut", late, 0.6, COORDINATOR))
    elif kind == 1:
        faults = [Fault(at, "stall", late, 0.3), Fault(at + 0.15, "island", early, 0.8)]
        faults.append(Fault(at + 0.2, "cut", late, 0.6, COORDINATOR))
    else:
        # It is decided, and the coordinator goes on without it, perhaps because a person says so.
        faults = [Fault(at, "island", early, 2.0)]
    if "files" in features:
        faults.append(Fault(at + 0.25, "swap", late, 0.02))
    if "people" in features:
        who = [early, late] if kind < 2 else [COORDINATOR]
        faults += [Fault(at + 0.1 * n, "person", who[n % len(who)]) for n in range(1, 7)]
    return faults
