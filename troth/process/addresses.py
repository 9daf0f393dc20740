"""Addresses as people write them, `127.0.0.1:7400` or `[::1]:7400`, and ports to listen on."""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import click

EXPECTED = "HOST:PORT, as in 127.0.0.1:7400 or [::1]:7400"

FREE_PORTS = "TROTH_FREE_PORTS"
"""The name in the environment, `FIRST-LAST`, of where free ports are taken from. Those who start processes side by side
stay apart by it: the port of one that is down for a moment is free to everybody else."""
_FREE_FROM = 10_000
"""Ports below this have well-known owners more often."""
_CHANCE = random.SystemRandom()
"""Not the one that tests seed: two that were seeded alike would take the same ports."""


class Address(NamedTuple):
    """Where a process listens or is reached. An IPv6 host is without its brackets here."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it. A name other than localhost is not looked up: it may be elsewhere."""
        ip = _ip(self.host)
        return ip.is_loopback if ip else self.host == "localhost"

    @property
    def everywhere(self) -> bool:
        """Whether it means every interface, which nobody can dial."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified


def parse(text: str) -> Address:
    """The address that `text` says. Raises ValueError with what was expected."""
    host, colon, port = text.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketed_right = (":" in bare) == (bare != host)
    if not (colon and bare and bracketed_right and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is not an address: expected {EXPECTED}")
    return Address(bare, int(port))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """A click parameter that is an address; it arrives as the text, checked."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(parse(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class NamedAddressType(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """A click parameter `p1=127.0.0.1:7401`; it arrives as (name, address)."""

    name = "name=address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Text is split; a pair is checked, as a configuration file has it."""
        name, address = value if isinstance(value, tuple) else self._split(str(value), param, ctx)
        try:
            return name, str(parse(address))
        except ValueError as error:
            self.fail(f"{name}: {error}", param, ctx)

    def _split(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, address = text.partition("=")
        if not (name and equals):
            self.fail(f"{text!r} names no participant: expected NAME=HOST:PORT, as in p1=127.0.0.1:7401", param, ctx)
        return name, address


def try_listen(address: Address) -> None:
    """Raises OSError when a server could not listen there now."""
    family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do, so that connections which linger after a restart do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)


def is_free(address: Address) -> bool:
    """Whether a server could listen there now. Raises OSError for an address that is not of this machine."""
    try:
        try_listen(address)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return False
        raise
    return True


def port_range() -> range:
    """Where free ports are taken from.

    They lie below the range from which the kernel takes ports for outgoing connections: a process that is down keeps
    none, and while others dial it again and again the kernel would sooner or later hand its own port to one of them."""
    told = os.environ.get(FREE_PORTS)
    if told is None:
        return range(_FREE_FROM, _outgoing_from())
    first, last = map(int, told.split("-"))
    return range(first, last + 1)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` ports in a row on which nobody listens."""
    tries = 200
    there = port_range()
    for _ in range(tries):
        begin = _CHANCE.randrange(len(there) - count + 1)
        ports = there[begin : begin + count]
        if _all_free(host, ports):
            return list(ports)
    raise OSError(errno.EADDRINUSE, f"no {count} free ports in a row found on {host}")


def _all_free(host: str, ports: Iterable[int]) -> bool:
    return all(is_free(Address(host, port)) for port in ports)


def _outgoing_from() -> int:
    """The first port that the kernel gives to outgoing connections (Linux; elsewhere the usual 32768)."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        return 32768
