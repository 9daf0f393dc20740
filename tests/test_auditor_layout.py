"""The auditor shares nothing with the engine that wrote the files but the schema: one mistake cannot hide itself."""

from __future__ import annotations

import sys
from pathlib import Path

import faults.auditor
from coordinator import log as decision_log
from faults.auditor import files
from participant import log as vote_log
from tests.test_layout import imports
from troth.log import file as log_file

FOLDER = Path(faults.auditor.__file__).parent
SCHEMA = {"troth.v1.types_pb2", "troth.words"}
"""The generated messages and the words: what the files are written in."""
DRIVERS = {"postgresql.py": "psycopg", "mariadb.py": "pymysql"}
"""By the module that alone may use it."""
COMMAND = "cli.py"
"""The only module that may use what all commands share; it reads no file."""


def test_the_reader_imports_the_schema_and_nothing_else_of_troth() -> None:
    for path in FOLDER.glob("*.py"):
        for module in imports(path):
            allowed = module in SCHEMA or module.startswith(("faults.auditor", "google.protobuf"))
            allowed |= module.split(".")[0] in sys.stdlib_module_names
            allowed |= module.split(".")[0] == DRIVERS.get(path.name)
            if path.name == COMMAND:
                allowed |= module == "click" or module.startswith("troth.cli.")
            assert allowed, f"{path.name} imports {module}"


def test_what_it_knows_of_the_schema_is_so() -> None:
    assert (files.APPLICATION_ID, files.FORMAT) == (log_file.APPLICATION_ID, log_file.FORMAT)
    text = {"coordinator": decision_log.SCHEMA, "participant": vote_log.SCHEMA}
    for role, tables in files._TABLES.items():
        for table in tables:
            assert f"CREATE TABLE {table} " in text[role]
    for table in files._OF_ALL:
        assert f"CREATE TABLE {table} " in log_file._SCHEMA
