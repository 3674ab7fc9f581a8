"""What has to hold before the host is touched, and what it means when it does not: one line that says what to do."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from esp.sa import Mode, SecurityProtocol
from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.credentials import CredentialsUnusable, check_ccache, check_keytab
from kinkvpn.kerberos.tickets import TicketUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kinkvpn.config import Configuration, HostSettings, PeerConfiguration
    from kinkvpn.kerberos.tickets import TicketSource
    from kinkvpn.proto.settings import PeerSettings

# specification
CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # linux/capability.h

# ours
# A resolver with its retries over three servers takes 15 s (resolv.conf(5)); who waits longer thinks it hangs.
RESOLVE_SECONDS = 10.0

_PROC = Path("/proc")


class StartRefused(KinkvpnError):
    """The daemon will not start; the message has one line for each reason, and nothing was changed.

    Args:
        reasons: one line each.
    """

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


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


# What the kernel meant.


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has what we want."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})"


def explain_bind(address: str, port: int, number: int | None) -> str:
    """Why a UDP socket could not be bound, given the errno.

    Args:
        address: as it was asked for, wildcard or not.
        port: as it was asked for.
        number: what bind said.
    """
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    match number:
        case errno.EADDRINUSE:
            return f"port {where}/udp is taken by {_holders(udp_holders(port), '; root sees it with `ss -lunp`')}"
        case errno.EACCES | errno.EPERM if port < unprivileged_port_start():
            return f"port {where}/udp: {explain_capability('CAP_NET_BIND_SERVICE')}"
        case errno.EADDRNOTAVAIL:
            return f"port {where}/udp: {address} is no address of this host"
        case _:
            return f"port {where}/udp: {os.strerror(number or 0)}"


def explain_raw(address: str, number: int | None) -> str:
    """Why a socket for ESP without UDP could not be opened or bound, given the errno."""
    match number:
        case errno.EACCES | errno.EPERM:
            return f'encapsulation = "raw": {explain_capability("CAP_NET_RAW")}'
        case errno.EADDRNOTAVAIL:
            return f"raw ESP: {address} is no address of this host"
        case _:
            return f"raw ESP at {address}: {os.strerror(number or 0)}"


def explain_tun(name: str, number: int | None, words: str) -> str:
    """Why there is no TUN device, given the errno and what the device itself made of it."""
    match number:
        case errno.EBUSY:
            return f"device {name} is in use by {_holders(tun_holders(name))}"
        case errno.EPERM if not has_capability("CAP_NET_ADMIN"):
            return f"device {name}: {explain_capability('CAP_NET_ADMIN')}"
        case _:
            return words


def has_capability(name: str) -> bool:
    """Whether this process has it effectively; this only explains, trying is what tells."""
    return bool(effective_capabilities() >> CAPABILITIES[name] & 1)


def effective_capabilities() -> int:
    """CapEff of /proc/self/status, a bit mask."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", (_PROC / "self/status").read_text(), re.MULTILINE)
    return int(found[1], 16) if found else 0


def explain_capability(name: str) -> str:
    """Which capability is missing, of whom, and the way out."""
    mask = effective_capabilities()
    if has_capability(name):
        return (
            f"refused although uid {os.geteuid()} has {name}: a namespace that belongs to others, or a security module"
        )
    return f"uid {os.geteuid()} lacks {name} (CapEff {mask:016x}): run as root, or with AmbientCapabilities={name}"


def unprivileged_port_start() -> int:
    """net.ipv4.ip_unprivileged_port_start: the first port that needs no capability."""
    try:
        return int((_PROC / "sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def udp_holders(port: int) -> list[Holder]:
    """Who has a UDP socket on ``port`` in this network namespace, as far as we may look at other processes."""
    inodes = {inode for table in ("udp", "udp6") for inode in _udp_inodes(_PROC / "self/net" / table, port)}
    return _holding(lambda target, _: any(target == f"socket:[{inode}]" for inode in inodes)) if inodes else []


def _udp_inodes(table: Path, port: int) -> Iterator[str]:
    """proc(5): the second field is ``address:port`` in hexadecimal, the tenth the inode."""
    with suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def tun_holders(name: str) -> list[Holder]:
    """Who has the TUN device ``name``; fdinfo of its descriptor says ``iff: name``.

    It does not say in which network namespace; that of the process is the best guess, and keeps namesakes out.
    """
    ours = (_PROC / "self/ns/net").readlink()

    def holds(target: str, fdinfo: Path) -> bool:
        if target != "/dev/net/tun" or f"iff:\t{name}\n" not in fdinfo.read_text():
            return False
        return (fdinfo.parent.parent / "ns/net").readlink() == ours

    return _holding(holds)


def _holding(holds: Callable[[str, Path], bool]) -> list[Holder]:
    """The processes with a descriptor that ``holds``, which gets its target and the path of its fdinfo."""
    found = []
    for process in sorted(_PROC.iterdir()):
        if process.name.isdigit() and any(_held(process, holds)):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(Holder(int(process.name), _short(command)))
    return found


def _held(process: Path, holds: Callable[[str, Path], bool]) -> Iterator[bool]:
    """Processes and descriptors go while we look, and others' are not ours to read."""
    descriptors: list[Path] = []
    with suppress(OSError):
        descriptors = list((process / "fd").iterdir())
    for descriptor in descriptors:
        with suppress(OSError):
            yield holds(str(descriptor.readlink()), process / "fdinfo" / descriptor.name)


def _short(command: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in command)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _holders(found: Sequence[Holder], advice: str = "") -> str:
    return ", ".join(map(str, found)) or f"a process that we may not look at{advice}"
