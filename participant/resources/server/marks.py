"""Where the parameters of a `sql` operation go, in whatever way a server writes that."""

from __future__ import annotations

import re
from collections.abc import Callable

from participant.resources.server.steps import Sql
from troth.v1.types_pb2 import Code

_MARK = re.compile(r"%(.?)", re.DOTALL)


def marked(step: Sql, mark: Callable[[int], str]) -> str:
    """The statement with `mark(n)` for its nth `%s`, n from 1, and a percent sign for `%%`. Raises No."""
    used = 0

    def replaced(matched: re.Match[str]) -> str:
        nonlocal used
        if matched[1] == "%":
            return "%"
        if matched[1] != "s":
            raise step.no(Code.CODE_BAD_OPERATION, f"{matched[0]} in the statement: write %s or %%")
        used += 1
        return mark(used)

    statement = _MARK.sub(replaced, step.statement)
    if used != len(step.parameters):
        message = f"the statement takes {used} parameters, and {len(step.parameters)} are given"
        raise step.no(Code.CODE_BAD_OPERATION, message)
    return statement
