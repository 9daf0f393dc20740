"""Hellos, identities, durable numbers: what a lane opens with (DESIGN section 4; rules 6 and 9)."""

from __future__ import annotations

import itertools

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from faults.conformance.check import Needs, check, require
from faults.conformance.target import Target
from troth.driving.lane import PROTOCOL_VERSION

AHEAD = 1_000_000
"""Far above any durable number of a file that is only tried out."""


@check("durability", "A hello says the protocol's version, the name, the file's identity and the incarnation.")
def hello_introduces_the_file(t: Target) -> None:
    hello = t.lane.hello
    said = (hello.version, hello.participant, bool(hello.identity), hello.incarnation > 0)
    expected = (PROTOCOL_VERSION, t.lane.name, True, True)
    require(said == expected, "version, name, an identity and an incarnation above 0", str(hello).replace("\n", " "))


@check("rule 6", "A hello says where peers reach the participant.")
def hello_says_where_peers_reach_it(t: Target) -> None:
    require(":" in t.lane.hello.address, "an address as HOST:PORT", repr(t.lane.hello.address))


@check("durability", "Health says SERVING once a lane is served, and no sooner than the locks are taken again.")
def health_says_serving(t: Target) -> None:
    status = t.call(health_pb2_grpc.HealthStub(t.lane.channel).Check, health_pb2.HealthCheckRequest()).status
    require(status == health_pb2.HealthCheckResponse.SERVING, "SERVING", status)


@check("rule 9", "Identity and incarnation stay the same over the lanes of one life.")
def a_new_lane_is_the_same_life(t: Target) -> None:
    before = (t.lane.hello.identity, t.lane.hello.incarnation)
    t.hang_up()
    hello = t.open()
    require((hello.identity, hello.incarnation) == before, f"{before} again", (hello.identity, hello.incarnation))


@check("rule 9", "Another life is another incarnation of the same file.", Needs.RESTART)
def another_life_is_another_incarnation(t: Target) -> None:
    before = (t.lane.hello.identity, t.lane.hello.incarnation)
    hello = t.kill()
    require(hello.identity == before[0], f"the identity {before[0]} again", hello.identity)
    require(hello.incarnation != before[1], "another incarnation", f"{hello.incarnation} again")


@check("durability", "A hello that means another participant is refused.")
def hello_for_another_is_refused(t: Target) -> None:
    t.refuses_lane("no lane for another participant's name", participant=f"not-{t.lane.name}")


@check("durability", "A hello of another protocol version is refused.")
def another_protocol_version_is_refused(t: Target) -> None:
    t.refuses_lane("no lane for another protocol version", version=PROTOCOL_VERSION + 1)


@check("rule 8", "A newer lane of the same log takes the older one's place; what is answered comes there.")
def a_newer_lane_takes_over(t: Target) -> None:
    number = t.yes(t.place().write())
    t.hang_up()
    t.open()
    t.commit(number)


@check("durability", "Every message carries the highest durable number, and it never goes back.")
def durable_numbers_never_go_back(t: Target) -> None:
    t.apply(t.place().write())
    numbers = t.lane.announced
    back = [(a, b) for a, b in itertools.pairwise(numbers) if b < a]
    require(not back, "numbers that never go back", back and f"{back[0][1]} after {back[0][0]}")
    require(numbers[-1] > 0, "a number above 0 once something is durable", numbers[-1])


@check("durability", "The coordinator's durable number is stored with the record that its message causes.")
def stored_number_is_said_in_the_hello(t: Target) -> None:
    t.lane.durable += 7
    t.apply(t.place().write())
    t.hang_up()
    require(t.open().seen == t.lane.durable, f"to be told {t.lane.durable}", t.lane.hello.seen)


@check("durability", "A coordinator log that is older than what was seen of it is refused (FAILED_PRECONDITION).")
def an_older_coordinator_log_is_refused(t: Target) -> None:
    t.lane.durable += 7
    t.apply(t.place().write())
    _refuses_older(t)


@check("durability", "It is still refused by another life.", Needs.RESTART)
def an_older_coordinator_log_is_refused_by_another_life(t: Target) -> None:
    t.lane.durable += 7
    t.apply(t.place().write())
    t.kill()
    _refuses_older(t)


def _refuses_older(t: Target) -> None:
    t.lane.durable -= 1
    try:
        status = t.refuses_lane("no lane for a log that was put back from an older copy")
    finally:
        t.lane.durable += 1
    require(status is grpc.StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION", status and status.name)


@check("durability", "A file older than what its coordinator has seen of it opens no lane.", Needs.RESTART)
def an_older_file_opens_no_lane(t: Target) -> None:
    t.refuses_lane("no lane of a file that was put back from an older copy", seen=max(t.lane.announced) + AHEAD)
    t.crash()
    t.back()
