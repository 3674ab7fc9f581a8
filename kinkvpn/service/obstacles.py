"""What of a host keeps us from starting, in a line each that says what to do."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esp.errors import EspError
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# specification
CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # linux/capability.h
# What a person without privilege can do instead.
WITHOUT = "`kinkvpn run` needs none"

_PROC = Path("/proc")


class StartRefused(KinkvpnError):
    """The daemon will not start; the message has one line for each reason, and nothing was changed.

    Args:
        reasons: one line each.
    """

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def first_leaf(group: BaseExceptionGroup[Any]) -> KinkvpnError | EspError:
    """The first failure of several that came at once; the others follow from it more often than not."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KinkvpnError | EspError)
    return error


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
    where = f"port {_end(address, port)}/udp"
    if number == errno.EADDRINUSE:
        return f"{where} is taken by {_holders(udp_holders(port), '; root sees it with `ss -lunp`')}"
    return _explain_end(where, address, port, number)


def explain_listen(address: str, port: int, number: int | None) -> str:
    """Why there is no TCP socket for metrics, given the errno; arguments as of :func:`explain_bind`."""
    where = f"metrics.listen, port {_end(address, port)}/tcp"
    if number == errno.EADDRINUSE:
        return f"{where} is taken; root sees by whom with `ss -ltnp`"
    return _explain_end(where, address, port, number)


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _explain_end(where: str, address: str, port: int, number: int | None) -> str:
    match number:
        case errno.EACCES | errno.EPERM if port < unprivileged_port_start():
            return f"{where}: {explain_capability('CAP_NET_BIND_SERVICE')}"
        case errno.EADDRNOTAVAIL:
            return f"{where}: {address} is no address of this host"
        case _:
            return f"{where}: {os.strerror(number or 0)}"


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
            return f"device {name}: {explain_capability('CAP_NET_ADMIN')}; {WITHOUT}"
        case _:
            return words


def explain_veth(name: str, number: int | None) -> str:
    """Why there is no veth pair, given the errno."""
    match number:
        case errno.EPERM | errno.EACCES:
            return f"device {name}: {explain_capability('CAP_NET_ADMIN')}; {WITHOUT}"
        case errno.EOPNOTSUPP | errno.ENODEV:
            return f"device {name}: this kernel has no veth devices: run `modprobe veth`"
        case errno.EEXIST:
            return f"device {name} is there already, and not ours: choose another name"
        case _:
            return f"device {name}: no veth pair: {os.strerror(number or 0)}"


def explain_packet(name: str, number: int | None) -> str:
    """Why there is no packet socket at one end of it, given the errno."""
    if number in (errno.EPERM, errno.EACCES):
        return f"device {name}, a veth pair: {explain_capability('CAP_NET_RAW')}; {WITHOUT}"
    return f"device {name}, a veth pair: no packet socket: {os.strerror(number or 0)}"


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
