"""A program that behaves towards its supervisor as a coordinator or participant does: `NAME ADDRESS [FAILS]`.

It says that it serves, and on SIGTERM notes its name in the file named by STANDIN_ENDED and ends. FAILS: `stubborn`
ignores SIGTERM, `once` serves and ends with 1, a number ends with that code before serving. It imports nothing of
Troth, so that it starts at once.
"""

from __future__ import annotations

import os
import signal
import sys


def main(name: str, address: str, fails: str = "") -> int:
    if fails.isdigit():
        print(f"troth: {name} cannot run", file=sys.stderr)
        return int(fails)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print(f"serving on {address}", flush=True)
    if fails == "once":
        return 1
    while signal.sigwait({signal.SIGTERM}) and fails == "stubborn":
        pass
    with open(os.environ["STANDIN_ENDED"], "a") as ended:
        ended.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
