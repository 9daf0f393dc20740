"""Reasons as data: why a transaction was aborted or refused.

A reason is the protobuf message `Reason` everywhere inside; here it is made, and turned into JSON for people.
"""

from __future__ import annotations

from typing import Any

from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code

RETRYABLE = frozenset(
    {
        Code.CODE_LOCK_TIMEOUT,
        Code.CODE_TIMEOUT,
        Code.CODE_UNREACHABLE,
        Code.CODE_LANE_LOST,
        Code.CODE_REFUSED_FOR_PEER,
        Code.CODE_OVERLOADED,
        Code.CODE_ENDED,
        Code.CODE_NOT_SERVING,
    }
)
"""Codes after which the same work may succeed later: nobody said no to the work itself."""


def reason(code: Code, message: str, **fields: Any) -> types_pb2.Reason:
    """A reason of `code` with one sentence for people; `fields` are those of the protobuf message."""
    return types_pb2.Reason(code=code, message=message, retryable=code in RETRYABLE, **fields)


def code_name(code: int) -> str:
    """`below_min` for CODE_BELOW_MIN."""
    return Code.Name(code).removeprefix("CODE_").lower()
