"""What ICMP says about datagrams of ours: read off the sockets' error queues (ip(7), IP_RECVERR).

An unconnected UDP socket hears of no ICMP error unless it asks, and then each one costs it something: the kernel gives
the error to whatever call comes next, a send that has nothing to do with it included. Whoever asks has to empty the
queue, and to send again what was refused for another datagram's sake. Nothing here is authentic.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/in.h, linux/in6.h, linux/errqueue.h; Python's socket module does not name them.
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3
# struct sock_extended_err: errno, origin, type, code, pad, info, data.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
_ERROR_MESSAGES = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}
# The offender's address follows it; and there may be another message, with our own address.
_ANCILLARY = socket.CMSG_SPACE(_EXTENDED_ERROR.size + 28) + socket.CMSG_SPACE(20)
# Ours. Errors that one look takes off a queue; more have to wait for the next one.
MAX_ERRORS = 64


def ask(sock: socket.socket) -> None:
    """Have ``sock`` told of ICMP errors about what it sends."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def take_unreachable(sock: socket.socket) -> tuple[int, set[Endpoint]]:
    """Empty the error queue of ``sock``: how many errors there were, and the remotes that ICMP calls unreachable.

    A datagram that is too long for the path says nothing about the remote.
    """
    errors, remotes = 0, set[Endpoint]()
    for _ in range(MAX_ERRORS):
        try:
            _, ancillary, _, address = sock.recvmsg(0, _ANCILLARY, socket.MSG_ERRQUEUE)
        except OSError:
            break
        errors += 1
        for level, kind, octets in ancillary:
            if (level, kind) not in _ERROR_MESSAGES:
                continue
            number, origin, *_rest = _EXTENDED_ERROR.unpack_from(octets)
            if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6) and number != errno.EMSGSIZE:
                remotes.add(Endpoint(address[0], address[1]))
    return errors, remotes


def sent_again(error: OSError, sock: socket.socket, send: Callable[[], object]) -> tuple[bool, set[Endpoint]]:
    """A send has failed with ``error``. If that was for an earlier datagram's sake, ``send`` once more.

    Returns:
        Whether it went this time, and the remotes that ICMP calls unreachable.
    """
    if error.errno in (errno.EAGAIN, errno.ENOBUFS):
        return False, set()
    errors, remotes = take_unreachable(sock)
    if not errors:
        return False, remotes
    try:
        send()
    except OSError:
        # What the second try has left behind: a queue that is not empty wakes its reader for ever.
        return False, remotes | take_unreachable(sock)[1]
    return True, remotes
