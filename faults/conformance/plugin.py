"""A pytest plugin, loaded by pytest wherever Troth is installed: `pytest --troth` lists what a resource promises, rule
by rule, and what holds. The promises are the tests of `resource.py` and `outside.py`. Without the flag it is silent.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite("faults.conformance.resource", "faults.conformance.outside")

_CONTRACTS = {"ResourceContract", "ServerContract"}
_RESULTS = {"passed": "holds", "failed": "violated", "skipped": "not checked"}
_FOUND = pytest.StashKey[dict[tuple[str, str, str], str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("troth").addoption(
        "--troth", action="store_true", help="list what a resource under Troth's contract promises, and what holds"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if item.config.getoption("--troth") and (report.when == "call" or report.outcome == "failed"):
        _note(item, report)
    return report


def _note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Of a promise that is tested several times, what is worst."""
    contract = getattr(item, "cls", None)
    if contract is None or not _CONTRACTS & {base.__name__ for base in contract.__mro__}:
        return
    rule, _, promise = (getattr(item, "function", item).__doc__ or "").partition(": ")
    key = contract.__name__, rule, " ".join(promise.split())
    found = item.config.stash.setdefault(_FOUND, {})
    if found.get(key) != "violated":
        found[key] = _RESULTS[report.outcome]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(_FOUND, {})
    for contract in sorted({name for name, _, _ in found}):
        terminalreporter.section(f"what {contract} promises")
        for (name, rule, promise), result in sorted(found.items(), key=lambda each: _place(each[0][1])):
            if name == contract:
                terminalreporter.line(f"{rule:<12}{result:<13}{promise}")


def _place(rule: str) -> tuple[int, str]:
    """Numbered rules by their number, then the others."""
    number = rule.rpartition(" ")[2]
    return (int(number), rule) if number.isdigit() else (100, rule)
