"""UDP sockets that somebody else has bound for us: a service manager that activates by them (sd_listen_fds(3)).

They have names, ``esp`` and ``kink`` (systemd.socket(5), FileDescriptorName). With them port 910 takes no capability,
and a datagram that comes before the daemon is up waits in the socket.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST = 3  # sd_listen_fds(3), SD_LISTEN_FDS_START


def inherited(name: str, environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Those of that ``name``, which are the caller's; none where nobody has passed any to this process.

    Raises:
        StartRefused: one is no UDP socket, or there are two of a family.
    """
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not environment.get("LISTEN_FDS", "").isdecimal():
        return []
    numbers = [FIRST + index for index in range(int(environment["LISTEN_FDS"])) if names[index : index + 1] == [name]]
    found = [_udp(number, name) for number in numbers]
    if len({each.family for each in found}) < len(found):
        raise StartRefused(f'the sockets called "{name}" are {len(found)}: expected one of IPv4 and one of IPv6')
    return found


def _udp(number: int, name: str) -> socket.socket:
    try:
        found = socket.socket(fileno=os.dup(number))
    except OSError as error:
        raise StartRefused(f'descriptor {number}, "{name}": {error.strerror}') from error
    if found.type != socket.SOCK_DGRAM or found.family not in (socket.AF_INET, socket.AF_INET6):
        found.close()
        raise StartRefused(f'descriptor {number}, "{name}": expected a UDP socket (ListenDatagram=)')
    os.set_inheritable(number, False)
    return found
