"""Values in their three forms: Python objects, the protobuf message `Value`, and JSON.

Python has one type for each kind of value (None, int, float, str, bytes, bool); JSON has no bytes, so a blob is written
`{"$base64": true, "encoded": "..."}`, as sqlite-utils does. Nothing is rounded or guessed: what does not fit is
BadInput.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

from troth.errors import BadInput
from troth.v1.types_pb2 import Value

Scalar: TypeAlias = bool | int | float | str | bytes | None
"""What one column can hold, as Python sees it."""

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

BLOB_KEYS = frozenset({"$base64", "encoded"})


def to_value(found: Scalar) -> Value:
    """The message for a Python object. Raises BadInput for an integer out of 64 bits, NaN, an infinity, text with NUL
    or half a surrogate pair, and any other type."""
    value = Value()
    set_value(value, found)
    return value


def set_value(value: Value, found: Scalar) -> None:
    """Makes an empty message, a part of another one perhaps, that of a Python object. Raises as `to_value` does."""
    if found is None:
        value.null = True
    elif isinstance(found, bool):  # Before int: a bool is one.
        value.boolean = found
    elif isinstance(found, int):
        value.integer = _checked_integer(found)
    elif isinstance(found, float):
        value.real = _checked_real(found)
    elif isinstance(found, str):
        value.text = checked_text(found)
    elif isinstance(found, bytes | bytearray | memoryview):
        value.blob = bytes(found)
    else:
        raise BadInput(f"a value is None, bool, int, float, str or bytes, not {type(found).__name__}: {_short(found)}")


def from_value(value: Value) -> Scalar:
    """The Python object of a message; None when nothing is set."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null":
        return None
    found: Scalar = getattr(value, kind)
    return found


def json_to_value(found: Any) -> Value:
    """The message for a decoded JSON value: a scalar, or a blob's object. Raises BadInput."""
    if isinstance(found, dict):
        return Value(blob=_blob(found))
    if isinstance(found, list):
        raise BadInput(f"expected one value, found a list: {_short(found)}")
    return to_value(found)


def value_to_json(value: Value) -> Any:
    """What `json.dumps` writes for a message; `json_to_value` is the inverse."""
    return scalar_to_json(from_value(value))


def scalar_to_json(found: Scalar) -> Any:
    """What `json.dumps` writes for a Python object."""
    if isinstance(found, bytes):
        return {"$base64": True, "encoded": base64.b64encode(found).decode("ascii")}
    return found


def key_to_json(key: Iterable[Value]) -> Any:
    """A key as people write it in JSON: its only value, or a list in primary-key order."""
    parts = [value_to_json(part) for part in key]
    return parts[0] if len(parts) == 1 else parts


def value_text(value: Value) -> str:
    """A value for people: printable text as it is, everything else as JSON."""
    found = from_value(value)
    return found if isinstance(found, str) and found.isprintable() else json.dumps(scalar_to_json(found))


def checked_text(found: str, what: str = "text") -> str:
    """`found`, if it can be sent and stored. Raises BadInput."""
    if "\0" in found:
        raise BadInput(f"{what} cannot hold a NUL character: {_short(found)}")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} cannot hold half of a surrogate pair: {_short(found)}") from None
    return found


def _checked_integer(found: int) -> int:
    if not INTEGER_MIN <= found <= INTEGER_MAX:
        raise BadInput(
            "an integer has 64 bits, from -9223372036854775808 to 9223372036854775807: this one does not fit"
        )
    return int(found)


def _checked_real(found: float) -> float:
    if not math.isfinite(found):
        raise BadInput(f"a number must be finite, found {found}")
    return float(found)


def _blob(found: dict[str, Any]) -> bytes:
    if found.keys() != BLOB_KEYS or found["$base64"] is not True or not isinstance(found["encoded"], str):
        raise BadInput(
            f'the only object that is a value is {{"$base64": true, "encoded": "..."}}, found {_short(found)}'
        )
    try:
        return base64.b64decode(found["encoded"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"not base64: {error}") from None


def _short(found: object) -> str:
    text = ascii(found)
    return text if len(text) <= 60 else text[:57] + "..."
