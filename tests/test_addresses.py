"""Addresses, and ports that stay free."""

from __future__ import annotations

import socket

import pytest

from troth.process import addresses
from troth.process.addresses import Address


@pytest.mark.parametrize("text", ["127.0.0.1:7400", "[::1]:7400", "localhost:0", "db.example.org:65535"])
def test_an_address_reads_back_as_it_was_written(text: str) -> None:
    assert str(addresses.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["7400", ":7400", "host", "host:", "host:x", "host:65536", "host:-1", "::1:7400", "[x]:1"]
)
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        addresses.parse(text)


@pytest.mark.parametrize(
    ("host", "loopback", "everywhere"),
    [
        ("127.0.0.1", True, False),
        ("127.8.8.8", True, False),
        ("::1", True, False),
        ("localhost", True, False),
        ("localhost.example.org", False, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("192.168.1.1", False, False),
    ],
)
def test_loopback_is_known_from_the_text_alone(host: str, loopback: bool, everywhere: bool) -> None:
    address = Address(host, 1)
    assert (address.loopback, address.everywhere) == (loopback, everywhere)


def test_a_port_is_free_until_a_server_listens_on_it() -> None:
    [port] = addresses.free_ports(1)
    address = Address("127.0.0.1", port)
    assert addresses.is_free(address)
    with socket.create_server(address):
        assert not addresses.is_free(address)


def test_free_ports_are_in_a_row_and_never_given_to_outgoing_connections() -> None:
    ports = addresses.free_ports(4)
    assert ports == list(range(ports[0], ports[0] + 4))
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        assert max(ports) < int(file.read().split()[0])


def test_free_ports_are_taken_from_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = ports = addresses.free_ports(4)
    monkeypatch.setenv(addresses.FREE_PORTS, f"{first}-{last}")
    assert addresses.free_ports(4) == ports
    with socket.create_server(("127.0.0.1", first)), pytest.raises(OSError, match="no 4 free ports in a row"):
        addresses.free_ports(4)


def test_an_address_of_another_machine_is_an_error_and_not_a_taken_port() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        addresses.is_free(Address("192.0.2.1", 7400))
