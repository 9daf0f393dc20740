"""`troth failpoints`: the points at which a process can be told to fail."""

from __future__ import annotations

import click

from faults.matrix.catalogue import POINTS, described
from troth.cli.common import json_option, say_json, say_table


@click.command("failpoints")
@json_option
def failpoints(*, as_json: bool) -> None:
    """List the points at which a process can be told to fail.

    TROTH_FAILPOINTS holds rules, separated by commas: POINT=ACTION, where an action is kill, stop, delay(SECONDS),
    drop, duplicate, error, full or note; @N waits for the Nth time that the point is reached, xN strikes N times in a
    row. In place of the role a point may begin with the name of one process. TROTH_FAILPOINTS=@FILE reads the rules
    from a file, anew whenever it changes. What strikes is logged.

    \b
    Examples:
      troth failpoints
      troth failpoints --json
      TROTH_FAILPOINTS=p2:voted:before-send=kill@3 troth up --participants 3 --data ./troth-data
      TROTH_FAILPOINTS='coordinator:commit:before-send=drop@2x3' troth up --participants 2 --data ./troth-data
    """
    if as_json:
        for point in POINTS:
            actions = [action.value for action in point.actions]
            say_json({"point": str(point), "role": point.role, "actions": actions, "what": described(point)})
    else:
        rows = [(str(point), ", ".join(action.value for action in point.actions), described(point)) for point in POINTS]
        say_table(["point", "actions", "what"], rows)
