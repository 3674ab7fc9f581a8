"""What ICMP says about datagrams of ours: read off the sockets' error queues (ip(7), IP_RECVERR).

An unconnected UDP socket hears of no ICMP error unless it asks, and then each one costs it something: the kernel gives
the error to whatever call comes next, a send that has nothing to do with it included. Whoever asks has to empty the
queue, and to send again what was refused for another datagram's sake. Nothing here is authentic.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/in.h, linux/in6.h, linux/errqueue.h; Python's socket module does not name them.
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_EE_ORIGIN_LOCAL = 1
SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3
# struct sock_extended_err: errno, origin, type, code, pad, info, data.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
_ERROR_MESSAGES = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}
# The offender's address follows it; and there may be another message, with our own address.
_ANCILLARY = socket.CMSG_SPACE(_EXTENDED_ERROR.size + 28) + socket.CMSG_SPACE(20)
# Ours. Errors that one look takes off a queue; more have to wait for the next one.
MAX_ERRORS = 64
# What an error quotes of our datagram is wanted as far as SPI and sequence number.
_QUOTED_OCTETS = 8


class TooBig(NamedTuple):
    """A datagram of ours was too long for the path.

    Args:
        remote: where it went.
        octets: of the largest IP packet that the path carries.
        quoted: the first octets of the datagram, as ICMP quotes it; None where this host's kernel says it by itself.
    """

    remote: Endpoint
    octets: int
    quoted: bytes | None


@dataclass(slots=True)
class Errors:
    """What an error queue held.

    Args:
        count: all of it.
        unreachable: the remotes that ICMP calls unreachable.
        too_big: datagrams that were too long.
    """

    count: int = 0
    unreachable: set[Endpoint] = field(default_factory=set)
    too_big: list[TooBig] = field(default_factory=list)

    def add(self, other: Errors) -> None:
        """Join what ``other`` has to these, as far as they stay few."""
        self.count += other.count
        if len(self.unreachable) < MAX_ERRORS:
            self.unreachable |= other.unreachable
        if len(self.too_big) < MAX_ERRORS:
            self.too_big += other.too_big


def ask(sock: socket.socket) -> None:
    """Have ``sock`` told of ICMP errors about what it sends."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def take_errors(sock: socket.socket) -> Errors:
    """Empty the error queue of ``sock``, :data:`MAX_ERRORS` of it at most."""
    errors = Errors()
    for _ in range(MAX_ERRORS):
        try:
            quoted, ancillary, _, address = sock.recvmsg(_QUOTED_OCTETS, _ANCILLARY, socket.MSG_ERRQUEUE)
        except OSError:
            break
        errors.count += 1
        for level, kind, octets in ancillary:
            if (level, kind) in _ERROR_MESSAGES:
                _sort(errors, quoted, octets, Endpoint(address[0], address[1]))
    return errors


def _sort(errors: Errors, quoted: bytes, octets: bytes, remote: Endpoint) -> None:
    number, origin, _type, _code, path, _data = _EXTENDED_ERROR.unpack_from(octets)
    if number == errno.EMSGSIZE:
        errors.too_big.append(TooBig(remote, path, None if origin == SO_EE_ORIGIN_LOCAL else quoted))
    elif origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
        errors.unreachable.add(remote)


def sent_again(error: OSError, sock: socket.socket, send: Callable[[], object]) -> tuple[bool, Errors]:
    """A send has failed with ``error``. If that was for an earlier datagram's sake, ``send`` once more.

    Returns:
        Whether it went this time, and what was in the error queue.
    """
    if error.errno in (errno.EAGAIN, errno.ENOBUFS):
        return False, Errors()
    errors = take_errors(sock)
    # Where the kernel itself says so, it is this one that is too long, and stays so.
    if not errors.count or any(each.quoted is None for each in errors.too_big):
        return False, errors
    try:
        send()
    except OSError:
        # What the second try has left behind: a queue that is not empty wakes its reader for ever.
        errors.add(take_errors(sock))
        return False, errors
    return True, errors
