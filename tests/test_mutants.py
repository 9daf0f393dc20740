"""Each mistake of `mutants.py` is found by the simulator: here by the first seed that finds it, of those from 0 on.

When the simulator or the engine changes, so may the seed: the failure names the next one. A mutant that survives
SEEDS_MAX runs is a hole in the checks: mend the checks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.simulator.runs import Size, run
from faults.simulator.violation import Violation
from tests import test_nodes_found as found
from tests import test_nodes_outside as paths
from tests.mutants import MUTANTS, mutated

SEEDS_MAX = 1000
SIZE = Size(100, (2, 3))

SEEDS: dict[str, int] = {
    "a vote is sent before it is forced": 0,
    "an acknowledgement is sent before it is forced": 0,
    "a decision is told before it is forced": 0,
    "aborted after the decision was handed over": 25,
    "a participant says aborted of what it does not know": 884,
    "a participant says committed of what it does not know": 7,
    "a prepared participant aborts on timeout": 4,
    "the finished list is forgotten too early": 3,
    "locks are not taken again after a restart": 4,
    "a late prepare is accepted after its abort": 181,
    "a READ_ONLY voter releases early": 0,
    "a READ_ONLY voter's new incarnation is ignored": 44,
    "a commit is applied twice": 4,
    "a second writer overwrites the decision": 2,
    "the end is written before the last acknowledgement": 1,
    "a peer that has not voted says aborted": 7,
    "a peer that voted NO says aborted and has not written it": 111,
    "a prepared peer says aborted": 29,
    "a READ_ONLY peer is named and vouches": 163,
    "a one-phase request is aborted on timeout": 7,
    "a one-phase request is sent again to a later incarnation": 4,
    "a one-phase request is run again as a new attempt": 7,
    "a one-phase request is run by whatever incarnation gets it": 285,
    "a one-phase request is sent before its submitted record is durable": 1,
    "an all-READ_ONLY commit of a client's id is not written": 0,
    "a client is told ABORTED by presumption": 0,
    "a client is told ABORTED before it is durable": 1,
    "a commit record is left for a later flush than its row's next prepare": 0,
    "a READ_ONLY vote is sent before what it read is durable": 0,
    "one row has two names": 1,
    "check and add on one row make an increment lock": 1,
    "another's pending bound is ignored": 38,
    "adds of one branch are summed": 38,
    "an aborted add counts as applied": 31,
    "a UNIQUE value is not locked": 19,
    "a message names the client's id, not the attempt": 4,
    "an epoch is not forced": 3,
    "a forgotten abort of the present incarnation is answered PENDING": 0,
    "a live attempt is answered as aborted": 3,
    "a live attempt is answered as committed": 4,
    "the expiry horizon goes back with the clock": 101,
    "an id that the log holds is taken as new after a restart": 24,
    "an id that was opened lately is taken as new again": 19,
    "an expired id is run": 0,
    "a heuristic outcome is passed on as the true one": 374,
    "a heuristic acknowledgement is not recorded": 2,
    "a branch resolved by hand stops asking": 59,
    "locks go before the record that ends the branch is queued": 0,
    "`abort ID` ends an open one-phase attempt": 6,
    "`abort ID` does not ask the register": 2,
    "a doubled one-phase request is refused by a later incarnation and believed": 71,
    "a branch that waits for a lock is answered as no trace": 4,
    "a branch at the writer is answered as no trace": 11,
    "asked about a one-phase request it does not know, a participant says aborted and does not refuse": 122,
    "a mark is replaced by an older one": 55,
    "the exceptions of a mark are ignored": 4,
    "the mark passes a claim whose end is not durable": 4,
    "the embedded decide does not look": 2,
    "a participant waits for its lane's answer before reading on": 4,
    "a trial error other than a constraint is taken as NO": 59,
    "other content hears the outcome of an id": 1,
    "a commit is recorded before the server has done it": 3,
    "locks go before the server has ended the branch": 3,
    "a trial is recorded though its branch was aborted meanwhile": 18,
    "what the server has ended otherwise is recorded plainly": 44,
    "what only the server has prepared is not taken up": 3,
    "a one-phase commit that only the server has is not taken up": 13,
    "what the mark excepts is not taken up": 287,
    "what the server has committed is taken up in the order of its numbers": 66,
    "somebody's commit of what nobody voted for is taken for a one-phase one": 66,
    "the server forgets before that is durable here": 192,
    "jobs of one branch overtake each other": 22,
    "prepares go out one after the other": 0,
    "commits go out one after the other": 0,
    "a client is answered only when all have applied": 1,
    "a commit is not sent again on an open lane": 29,
    "a commit is sent again all the time": 29,
    "what passes is not tried again": 4,
    "every record of the coordinator is forced": 8,
    "an abort of an assigned id is written": 8,
    "an undo is forced": 8,
    "an undo keeps its locks": 1,
    "who comes later is served before who waits": 0,
    "a hello asks nothing": 4,
    "a prepare goes before the answers to a hello": 4,
    "peers are asked and the coordinator is not": 3,
    "rows that are gone are not said to be": 1,
    "who asks again is refused": 1,
    "an outcome in the log is told as UNKNOWN": 1,
}


BY_TESTS: dict[str, Callable[[], None]] = {
    "a peer asked by address is another file by now, and answers": (
        found.test_rule_6_a_question_that_is_meant_for_another_file_is_not_answered
    ),
    "a branch that only the server knew of votes": paths.test_rule_6_an_orphan_does_not_vote_again,
    "the mark passes a branch that is at the server": (paths.test_a_mark_does_not_drop_a_branch_that_is_at_the_server),
    "the server forgets what is not ended here": (
        paths.test_rule_12_the_server_remembers_what_the_mark_has_passed_and_is_not_ended_here
    ),
    "what was in doubt at the start is looked for": (
        paths.test_a_branch_found_in_doubt_at_the_start_is_not_taken_as_ended_by_somebody_else
    ),
}
"""Rarer than SEEDS_MAX runs: what the test of its path finds."""


def test_every_mutant_has_a_seed() -> None:
    assert [name for name in MUTANTS if name not in BY_TESTS] == list(SEEDS)
    assert BY_TESTS.keys() < MUTANTS.keys()
    assert max(SEEDS.values()) < SEEDS_MAX


@pytest.mark.parametrize("name", SEEDS)
def test_a_mutant_is_found(name: str) -> None:
    with mutated(name):
        if run(SEEDS[name], SIZE).failure is not None:
            return
        other = next((seed for seed in range(SEEDS_MAX) if run(seed, SIZE).failure is not None), None)
    hint = f"seed {other} finds it" if other is not None else f"survived {SEEDS_MAX} runs"
    pytest.fail(f"{name}: seed {SEEDS[name]} no longer finds it; {hint}")


@pytest.mark.parametrize("name", BY_TESTS)
def test_a_rare_mutant_is_found_by_the_test_of_its_path(name: str) -> None:
    with mutated(name), pytest.raises((AssertionError, Violation)):
        BY_TESTS[name]()


@pytest.mark.parametrize("seed", sorted(set(SEEDS.values())))
def test_without_the_mistake_the_same_seed_holds(seed: int) -> None:
    assert run(seed, SIZE).failure is None
