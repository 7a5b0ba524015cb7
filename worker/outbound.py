"""Where the service may be made to connect to by its users: public addresses over https, and exactly the ones checked.

A name is resolved once, every address that it has is checked, and the connection goes to one of those and to no other
(a second look at the name could say something else). The certificate is still that of the name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

Resolver = Callable[[str, int], Sequence[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Addresses of IPv6 that stand for one of IPv4: what they lead to is what counts.
TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
HTTPS_PORT = 443
HTTP_PORT = 80


class DestinationRefusedError(Exception):
    """A URL leads to where the service does not connect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One checked place. url: with the address in place of the name. host_header, server_name: as the name has it."""

    url: httpx.URL
    host_header: str
    server_name: str


def resolve(host: str, port: int) -> Sequence[str]:
    """Returns every address of a name; raises OSError where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def destination(url: str, *, private: bool, resolver: Resolver = resolve) -> Destination:
    """Returns where to connect for a URL. private: plain http and addresses that are not public are allowed.

    Raises DestinationRefusedError with the reason.
    """
    parsed = httpx.URL(url)
    if parsed.scheme != "https" and not (private and parsed.scheme == "http"):
        raise DestinationRefusedError("only https is allowed")
    port = parsed.port or (HTTPS_PORT if parsed.scheme == "https" else HTTP_PORT)
    try:
        addresses = list(resolver(parsed.host, port))
    except OSError as error:
        raise DestinationRefusedError(f"the name {parsed.host} does not resolve") from error
    if not addresses:
        raise DestinationRefusedError(f"the name {parsed.host} does not resolve")
    if not private:
        _require_public(parsed.host, addresses)
    return Destination(
        url=parsed.copy_with(host=addresses[0].partition("%")[0]),
        host_header=parsed.netloc.decode("ascii"),
        server_name=parsed.raw_host.decode("ascii"),
    )


def _require_public(host: str, addresses: Sequence[str]) -> None:
    """One address that is not public spoils the name: which of them would be taken is chance."""
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not _public(address):
            raise DestinationRefusedError(f"the name {host} leads to {address}, which is not a public address")


def _public(address: Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return _public(inner)
    return address.teredo is None and not any(address in network for network in TRANSLATED)
