"""The contract of a resource with a server, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.conformance.outside import OutsideSubject, ServerContract
from faults.servers import Database
from tests.postgresql_tools import PostgreSQLSubject


class TestPostgreSQL(ServerContract):
    @pytest.fixture
    def subject(self, postgresql_databases: Callable[[], Database]) -> OutsideSubject:
        return PostgreSQLSubject(postgresql_databases)
