"""OpenVPN 2.6 without its kernel module: point to point, TLS with two certificates made for the occasion."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.contestants.contestant import SOCKET_OCTETS, Setting, Tunnel, running
from bench.underlay import INNER, IP_OCTETS, MTU, OUTER, UDP_OCTETS, underlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CIPHERS: Final = {"aes128-gcm16": "AES-128-GCM", "aes256-gcm16": "AES-256-GCM"}
# Opcode and peer id, packet id, tag.
OVERHEAD: Final = 4 + 4 + 16
PORT: Final = "1194"


class OpenVpn:
    """Everything here that is not needed to connect is for its speed, or keeps the run free of rekeys."""

    name = "openvpn"

    def obstacle(self) -> str | None:
        return None if shutil.which("openvpn") else "apt-get install openvpn"

    def takes(self, setting: Setting) -> bool:
        return setting.suite in CIPHERS

    @contextmanager
    def tunnel(self, setting: Setting, directory: Path) -> Iterator[Tunnel]:
        fingerprints = [certificate(directory, side) for side in (0, 1)]
        with underlay() as ends, ExitStack() as held:
            daemons = [
                held.enter_context(
                    running(end, command(setting, directory, side, fingerprints[1 - side]), directory / f"{side}.log")
                )
                for side, end in enumerate(ends)
            ]
            said = subprocess.run(["openvpn", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
            version = " ".join(said.stdout.split()[:2])
            yield Tunnel(ends, setting.suite, tuple(daemon.pid for daemon in daemons), f"{version} (no DCO)")


def command(setting: Setting, directory: Path, side: int, fingerprint: str) -> list[str]:
    """Of side 0, the client, or 1; ``fingerprint`` is that of the other's certificate."""
    near, far = (OUTER[setting.outer][each] for each in (side, 1 - side))
    options = {
        "dev": "tun0",
        "dev-type": "tun",
        "proto": f"udp{setting.outer}",
        "local": near,
        "remote": f"{far} {PORT}",
        "port": PORT,
        "ifconfig": f"{INNER[4][side]} {INNER[4][1 - side]}",
        "ifconfig-ipv6": f"{INNER[6][side]}/64 {INNER[6][1 - side]}",
        "route-ipv6": f"{INNER[6][1 - side]}/128",
        "tls-server" if side else "tls-client": "",
        **({"dh": "none"} if side else {}),
        "cert": str(directory / f"{side}.crt"),
        "key": str(directory / f"{side}.key"),
        "peer-fingerprint": fingerprint,
        "data-ciphers": CIPHERS[setting.suite],
        "disable-dco": "",
        # The largest that the wire carries whole.
        "tun-mtu": str(MTU - IP_OCTETS[setting.outer] - UDP_OCTETS - OVERHEAD),
        "mssfix": "0",
        "fast-io": "",
        "sndbuf": str(SOCKET_OCTETS),
        "rcvbuf": str(SOCKET_OCTETS),
        "reneg-sec": "0",
        "verb": "1",
    }
    return ["openvpn", *(word for key, value in options.items() for word in (f"--{key}", *value.split()))]


def certificate(directory: Path, side: int) -> str:
    """Writes a self-signed certificate and its key. Returns the fingerprint as OpenVPN takes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {side}")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, secret = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / f"{side}.crt").write_bytes(made.public_bytes(encoding))
    key_file = directory / f"{side}.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(encoding, secret, serialization.NoEncryption()))
    return made.fingerprint(hashes.SHA256()).hex(":")
