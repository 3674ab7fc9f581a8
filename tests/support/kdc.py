"""A real realm on loopback for the tests marked ``kdc``; nothing here stands in for Kerberos."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A loopback port that neither UDP nor TCP uses now."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        return port
