"""What is behind a gateway: a web server, a name server, and an echo of datagrams.

    python -m support.behind ADDRESS...

At port 80 of every address: GET /octets/N is N octets, anything else says who asked, and POST says how much came. At
port 53: web.test and its like have the addresses; large.test more than a datagram of 512 octets carries, so that TCP is
asked; whatever else does not exist. At port 7, UDP.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
PLAIN_LIMIT = 512  # RFC 1035 §4.2.1


@contextmanager
def servers(host: Host, *addresses: str) -> Iterator[None]:
    """All of it, once ``host`` has the ``addresses``, while the block runs."""
    deadline = time.monotonic() + START_SECONDS
    while not all(address in host.namespace.run(["ip", "address"]) for address in addresses):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process = subprocess.Popen(
        [*host.namespace.prefix, sys.executable, "-m", "support.behind", *addresses],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.communicate()


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, kind, *rest = [*self.path.split("/"), ""]
        said = bytes(int(rest[0])) if kind == "octets" else f"{self.path} for {self.client_address[0]}\n".encode()
        self._say(said)

    def do_POST(self) -> None:
        self._say(str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode())

    def _say(self, said: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


class Web6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def answer(wire: bytes, addresses: list[str], *, limit: int) -> bytes:
    query = dns.message.from_wire(wire)
    reply = dns.message.make_response(query)
    name, kind = query.question[0].name, query.question[0].rdtype
    kinds = {"A": [each for each in addresses if ":" not in each], "AAAA": [each for each in addresses if ":" in each]}
    known = kinds.get(kind.name, [])
    if name.labels[0] == b"large" and kind.name == "A":
        known = [*known, *(f"198.51.100.{number}" for number in range(60))]
    if name.labels[-2:-1] != (b"test",):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif known:
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind.name, *known))
    whole = reply.to_wire(max_size=65_535)
    if len(whole) <= limit:
        return whole
    cut = dns.message.make_response(query)
    cut.flags |= dns.flags.TC
    return cut.to_wire()


def serve_names(address: str, addresses: list[str]) -> None:
    with bound(address, 53) as udp:
        while True:
            wire, source = udp.recvfrom(65_535)
            udp.sendto(answer(wire, addresses, limit=PLAIN_LIMIT), source)


def serve_names_by_tcp(address: str, addresses: list[str]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 53), family=family) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                wire = stream.read(int.from_bytes(stream.read(2)))
                reply = answer(wire, addresses, limit=65_535)
                connection.sendall(len(reply).to_bytes(2) + reply)


def echo(address: str) -> None:
    with bound(address, 7) as udp:
        while True:
            octets, source = udp.recvfrom(65_535)
            udp.sendto(octets, source)


def bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def main(addresses: list[str]) -> None:
    for address in addresses:
        web = (Web6 if ":" in address else ThreadingHTTPServer)((address, 80), Web)
        for target, arguments in (
            (web.serve_forever, ()),
            (serve_names, (address, addresses)),
            (serve_names_by_tcp, (address, addresses)),
            (echo, (address,)),
        ):
            threading.Thread(target=target, args=arguments, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
