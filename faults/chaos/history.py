"""Says whether a history of list appends and reads is one that a serial order could have made. Pure.

Every transaction appends values, each used once, to some lists and reads others whole. So each list in the end tells
the order of its writers, and each read tells which of them it saw; from that come the edges of the dependency graph:

- write-write: the writers of neighbouring values of one list;
- write-read: the writer of the last value that was seen, and who saw it;
- read-write: who saw a list, and the writer of the next value.

A cycle is an anomaly (Adya, "Weak Consistency", 1999, chapter 4; the lists are those of Kingsbury and Alvaro, "Elle",
2020). Nothing of the engine is used here, its lock table least of all. A transaction whose outcome nobody knows counts
as committed when any of its values is seen.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from faults.chaos.findings import Finding
from troth.words import Outcome

Values = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One transaction as its client saw it."""

    id: str
    outcome: Outcome
    appends: Mapping[str, int]
    """The value by list."""
    reads: Mapping[str, Values] = field(default_factory=dict)
    """What the list held before this transaction's own append. Counts when it is COMMITTED."""
    at_least: Mapping[str, int] = field(default_factory=dict)
    """How long the list was known to be when this was submitted."""


class Edge(enum.Enum):
    """Why one transaction comes before another."""

    WRITE_WRITE = "write-write"
    WRITE_READ = "write-read"
    READ_WRITE = "read-write"


Graph = dict[int, dict[int, tuple[Edge, str]]]
"""By position in the history: who comes later, why, and by which list. The first reason found is kept."""


def anomalies(history: Sequence[Seen], final: Mapping[str, Values]) -> list[Finding]:
    """Everything that is wrong with a history, given all lists as they are in the end."""
    writers = {(key, value): at for at, seen in enumerate(history) for key, value in seen.appends.items()}
    return [
        *_values(history, final, writers),
        *_torn(history, final),
        *_reads(history, final, writers),
        *_cycles(history, final, writers),
    ]


# Without the graph.


def _values(
    history: Sequence[Seen], final: Mapping[str, Values], writers: Mapping[tuple[str, int], int]
) -> Iterator[Finding]:
    """Every value in the end is somebody's, there once, and not of an aborted transaction."""
    for key, values in sorted(final.items()):
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield Finding("doubled append", f"{key} holds {value} {values.count(value)} times")
        for value in values:
            if (key, value) not in writers:
                yield Finding("foreign value", f"{key} holds {value}, which nobody appended")
            elif history[writers[key, value]].outcome is Outcome.ABORTED:
                id = history[writers[key, value]].id
                yield Finding("aborted append", f"{key} holds {value} of {id}, which is ABORTED")


def _torn(history: Sequence[Seen], final: Mapping[str, Values]) -> Iterator[Finding]:
    """Each transaction's values are all there or none; of a committed one, all."""
    for seen in history:
        missing = [key for key, value in seen.appends.items() if value not in final.get(key, ())]
        there = [key for key in seen.appends if key not in missing]
        if missing and there and seen.outcome is not Outcome.ABORTED:
            yield Finding("torn", f"{seen.id} is {seen.outcome.name}: in {_names(there)}, not in {_names(missing)}")
        elif missing and seen.outcome is Outcome.COMMITTED:
            yield Finding("lost append", f"{seen.id} is COMMITTED and not in {_names(missing)}")


def _reads(
    history: Sequence[Seen], final: Mapping[str, Values], writers: Mapping[tuple[str, int], int]
) -> Iterator[Finding]:
    """Each read is a beginning of its list, and not older than what was known before."""
    for seen in history:
        for key, values in seen.reads.items() if seen.outcome is Outcome.COMMITTED else ():
            aborted = [v for v in values if (at := writers.get((key, v))) is not None and _is_aborted(history[at])]
            if aborted:
                yield Finding("aborted read", f"{seen.id} read {aborted[0]} in {key}, of an ABORTED transaction")
            elif values != final.get(key, ())[: len(values)]:
                yield Finding(
                    "not a beginning", f"{seen.id} read {_list(values)} in {key}: {_list(final.get(key, ()))}"
                )
            elif len(values) < seen.at_least.get(key, 0):
                known = seen.at_least[key]
                yield Finding("stale read", f"{seen.id} read {len(values)} values in {key}; {known} were known before")


def _is_aborted(seen: Seen) -> bool:
    return seen.outcome is Outcome.ABORTED


# With it.


def _cycles(
    history: Sequence[Seen], final: Mapping[str, Values], writers: Mapping[tuple[str, int], int]
) -> Iterator[Finding]:
    graph = _graph(history, final, writers)
    for component in _components(graph):
        cycle = _shortest_cycle(graph, component)
        edges = [graph[one][other] for one, other in zip(cycle, cycle[1:] + cycle[:1], strict=True)]
        steps = [f"{history[at].id} -{edge.value} by {key}->" for at, (edge, key) in zip(cycle, edges, strict=True)]
        text = " ".join([*steps, history[cycle[0]].id])
        yield Finding(_kind([edge for edge, _ in edges], len({key for _, key in edges})), text)


def _kind(edges: Sequence[Edge], lists: int) -> str:
    """The field's name for a cycle, by its read-write edges."""
    match edges.count(Edge.READ_WRITE):
        case 0:
            return "circular writes" if set(edges) == {Edge.WRITE_WRITE} else "circular information flow"
        case 1:
            return "lost update" if lists == 1 else "read skew"
        case _:
            return "write skew"


def _graph(history: Sequence[Seen], final: Mapping[str, Values], writers: Mapping[tuple[str, int], int]) -> Graph:
    graph: Graph = {}

    def edge(one: int | None, other: int | None, kind: Edge, key: str) -> None:
        if one is not None and other is not None and one != other:
            graph.setdefault(one, {}).setdefault(other, (kind, key))

    for key, values in final.items():
        order = [writers.get((key, value)) for value in values]
        for one, other in pairwise(order):
            edge(one, other, Edge.WRITE_WRITE, key)
    for at, seen in enumerate(history):
        for key, values in seen.reads.items() if seen.outcome is Outcome.COMMITTED else ():
            if values:
                edge(writers.get((key, values[-1])), at, Edge.WRITE_READ, key)
            if len(values) < len(final.get(key, ())):
                edge(at, writers.get((key, final[key][len(values)])), Edge.READ_WRITE, key)
    return graph


def _components(graph: Graph) -> Iterator[set[int]]:
    """The strongly connected components of more than one node (Tarjan 1972, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in graph:
        work = [] if root in index else [(root, iter(graph.get(root, ())))]
        while work:
            node, later = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
                on_stack.add(node)
            following = next((other for other in later if other not in index or other in on_stack), None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = _popped(stack, on_stack, node)
                    if len(component) > 1:
                        yield component
            elif following in index:
                low[node] = min(low[node], index[following])
            else:
                work.append((following, iter(graph.get(following, ()))))


def _popped(stack: list[int], on_stack: set[int], until: int) -> set[int]:
    """What lies on the stack down to `until`, taken off it."""
    component: set[int] = set()
    while until not in component:
        component.add(stack.pop())
    on_stack -= component
    return component


def _shortest_cycle(graph: Graph, component: set[int]) -> list[int]:
    """One of the shortest ways from a node of the component back to it, over its first nodes."""
    found = [_way_back(graph, component, start) for start in sorted(component)[:100]]
    return min(found, key=len)


def _way_back(graph: Graph, component: set[int], start: int) -> list[int]:
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other in graph.get(node, {}):
            if other == start:
                way = [node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other in component and other not in came_from:
                came_from[other] = node
                queue.append(other)
    raise AssertionError(f"{start} is in a component and on no cycle")


def _names(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys))


def _list(values: Values) -> str:
    return f"[{', '.join(map(str, values))}]"
