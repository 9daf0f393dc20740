"""A pytest plugin, loaded by pytest wherever Troth is installed: `pytest --troth` lists what a resource promises, rule
by rule, and what holds. The promises are the tests of `resource.py` and `outside.py`. Without the flag it is silent.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite("faults.conformance.resource", "faults.conformance.outside")

_CONTRACTS = {"ResourceContract", "ServerContract"}
_RESULTS = {"passed": "holds", "failed": "violated", "skipped": "not checked"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("troth").addoption(
        "--troth", action="store_true", help="list what a resource under Troth's contract promises, and what holds"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--troth"):
        config.pluginmanager.register(_Listing())


class _Listing:
    """Notes go with the reports: tests may run in workers, and then only their reports come to who lists."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report = yield
        contract = getattr(item, "cls", None)
        if contract is None or not _CONTRACTS & {base.__name__ for base in contract.__mro__}:
            return report
        if report.when == "call" or report.outcome == "failed":
            rule, _, promise = (getattr(item, "function", item).__doc__ or "").partition(": ")
            report.troth_promise = [contract.__name__, rule, " ".join(promise.split()), _RESULTS[report.outcome]]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a promise that is tested several times, what is worst."""
        *key, result = getattr(report, "troth_promise", [None])
        if key and self._found.get(tuple(key)) != "violated":
            self._found[tuple(key)] = result

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for contract in sorted({name for name, _, _ in self._found}):
            terminalreporter.section(f"what {contract} promises")
            for (name, rule, promise), result in sorted(self._found.items(), key=lambda each: _place(each[0][1])):
                if name == contract:
                    terminalreporter.line(f"{rule:<12}{result:<13}{promise}")


def _place(rule: str) -> tuple[int, str]:
    """Numbered rules by their number, then the others."""
    number = rule.rpartition(" ")[2]
    return (int(number), rule) if number.isdigit() else (100, rule)
