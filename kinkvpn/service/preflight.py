"""What has to hold before the host is touched, and what it means when it does not: one line that says what to do."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio

from esp.sa import Mode, SecurityProtocol
from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.credentials import CredentialsUnusable, check_ccache, check_keytab
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinkvpn.config import Configuration, HostSettings, PeerConfiguration
    from kinkvpn.kerberos.tickets import TicketSource
    from kinkvpn.proto.settings import PeerSettings

# ours
# A resolver with its retries over three servers takes 15 s (resolv.conf(5)); who waits longer thinks it hangs.
RESOLVE_SECONDS = 10.0


# Names.


async def resolve_peers(configuration: Configuration) -> tuple[PeerSettings, ...]:
    """Every peer with an address in place of its name, of a family that KINK listens on; all names at once. Who has
    neither is answered wherever it comes from.

    Raises:
        StartRefused: with a line for every name that does not resolve.
    """
    versions: set[int] = {ip_address(address).version for address in configuration.kink.listen}
    addresses: dict[str, str] = {}
    failures: dict[str, str] = {}

    async def resolve(peer: PeerConfiguration) -> None:
        try:
            addresses[peer.name] = peer.address and await resolve_address(peer.address, versions)
        except StartRefused as refused:
            failures[peer.name] = f"peer {peer.name}: {refused}"

    async with trio.open_nursery() as nursery:
        for peer in configuration.peers:
            nursery.start_soon(resolve, peer)
    if failures:
        raise StartRefused(*(failures[peer.name] for peer in configuration.peers if peer.name in failures))
    return tuple(_settings(peer, addresses[peer.name]) for peer in configuration.peers)


def _settings(peer: PeerConfiguration, address: str) -> PeerSettings:
    """With this host's own address towards it, where AH has to know that."""
    covered = any(policy.protocol is SecurityProtocol.AH and policy.mode is Mode.TUNNEL for policy in peer.policies)
    if not covered:
        return peer.settings(address)
    try:
        return replace(peer.settings(address), local=leaving_address(address))
    except OSError as error:
        raise StartRefused(
            f'peer {peer.name}: ipsec = "ah" has to know the way to {address}: {error.strerror}'
        ) from None


def leaving_address(remote: str) -> str:
    """The address of this host that packets to ``remote`` leave from, as its routes are now. Nothing is sent.

    Raises:
        OSError: there is no way, or ``remote`` is no address.
    """
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        asked.connect((remote, 9))  # RFC 863; any port would do
        return str(asked.getsockname()[0])


async def resolve_address(host: str, versions: set[int]) -> str:
    """The first address of ``host``, as the resolver orders them (RFC 6724), of an IP version in ``versions``.

    Raises:
        StartRefused: there is none, or no answer within RESOLVE_SECONDS.
    """
    found: list[str] = []
    with trio.move_on_after(RESOLVE_SECONDS) as waiting:
        try:
            answers = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise StartRefused(f"{host} does not resolve: {error.strerror}") from None
        found = [str(answer[4][0]) for answer in answers]
    if waiting.cancelled_caught:
        raise StartRefused(f"{host} does not resolve: no answer within {RESOLVE_SECONDS:g} s")
    usable = [address for address in found if ip_address(address).version in versions]
    if not usable:
        listened = " and ".join(f"IPv{version}" for version in sorted(versions))
        raise StartRefused(f"{host} is {', '.join(found)}, but kink.listen has {listened} addresses only")
    return usable[0]


# Kerberos.


def check_kerberos(host: HostSettings) -> list[str]:
    """A line for everything on this host that would keep us from proving who we are; asks no KDC. Blocks for the disk.

    The first call decides which krb5.conf this process has: call it before anything else of Kerberos.
    """
    try:
        if host.krb5_config is not None:
            libkrb5.use_config(host.krb5_config)
        libkrb5.Context()
    except KinkvpnError as error:
        return [str(error)]  # without a library or its configuration the rest says the same again
    checks: list[Callable[[], object]] = []
    if host.keytab is not None:
        checks.append(partial(check_keytab, host.keytab, host.principal))
    if host.client_keytab is not None:
        checks.append(partial(check_keytab, host.client_keytab, host.principal))
    elif host.ccache is not None:
        checks.append(partial(check_ccache, host.ccache, host.principal))
    return [line for check in checks for line in _complaints(check)]


def _complaints(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except (CredentialsUnusable, libkrb5.Krb5Error) as error:
        yield str(error)


async def reach_kdc(tickets: TicketSource, host: HostSettings) -> None:
    """Get our ticket-granting ticket: the KDC is there, knows us, and agrees about key, clock and enctype.

    Raises:
        StartRefused: which KDC, how long we waited, what it said.
    """
    try:
        await tickets.reach_kdc(deadline=host.kdc_timeout)
    except TicketUnavailable as unavailable:
        raise StartRefused(unavailable.refusal.reason) from unavailable
