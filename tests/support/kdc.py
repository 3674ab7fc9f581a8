"""A real realm on loopback for the tests marked ``kdc``; nothing here stands in for Kerberos."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.listening import wait_listening

from kinkvpn.demo.realm import end, tool
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.session import Acceptor, ServiceTicket, patient_context
from kinkvpn.kerberos.tickets import fetch_ticket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinkvpn.demo.realm import Realm

ALICE = "kink/alice.test@KINKVPN.TEST"
BOB = "kink/bob.test@KINKVPN.TEST"


def free_port() -> int:
    """A loopback port that neither UDP nor TCP uses now."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        return port


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Takes datagrams and connections on the loopback port and never answers."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(("127.0.0.1", port))
        tcp.listen()
        udp.bind(("127.0.0.1", port))
        yield


@dataclass
class Lab:
    """A running realm and the keytabs of its services."""

    realm: Realm
    directory: Path
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def keytab(self, principal: str) -> Path:
        """The principal's keytab; principal and keytab are made when they are first asked for."""
        path = self.directory / f"{principal.partition('@')[0].replace('/', '_')}.keytab"
        if not path.exists():
            self.realm.add_service(principal)
            self.realm.write_keytab(principal, path)
        return path

    def credentials(self, principal: str = ALICE) -> Credentials:
        """The principal's, with nothing acquired yet."""
        return Credentials(principal, keytab=self.keytab(principal))

    def ticket(self, client: str = ALICE, server: str = BOB, *, tgt: bytes | None = None) -> ServiceTicket:
        """A new ticket, from the KDC; a user-to-user one if it is to be made with the server's ``tgt``."""
        if not server.startswith("krbtgt/"):
            self.keytab(server)
        credentials, offset = fetch_ticket(self.credentials(client), server, tgt)
        return ServiceTicket(patient_context(), credentials, offset, tgt)

    def acceptor(self, principal: str = BOB, *, clock_offset: float = 0.0) -> Acceptor:
        """The principal's, with a replay cache of its own."""
        cache = f"file2:{self.directory}/replays{next(self.numbers)}"
        return Acceptor([principal], self.keytab(principal), replay_cache=cache, clock_offset=clock_offset)


@contextlib.contextmanager
def second_kdc(realm: Realm, address: str, port: int) -> Iterator[None]:
    """A second krb5kdc over the realm's database, which krb5.conf names after the first."""
    first, directory, conf = realm.krb5_conf.read_text(), realm.directory, realm.directory / "second.conf"
    profile = (directory / "kdc.conf").read_text().replace("kdc.log", "second.log")
    conf.write_text(re.sub(r"listen = .*", f"listen = {address}:{port}", profile))
    kdc = subprocess.Popen(
        [*realm.prefix, tool("krb5kdc"), "-n", "-r", realm.name],
        env=realm.environment | {"KRB5_KDC_PROFILE": str(conf)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_listening(kdc, port, "the second krb5kdc", directory / "second.log")
        realm.krb5_conf.write_text(re.sub(r"( +kdc = .*)\n", rf"\1\n        kdc = {address}:{port}\n", first))
        yield
    finally:
        realm.krb5_conf.write_text(first)
        end(kdc)
