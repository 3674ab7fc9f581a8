"""wireguard-go as Debian has it, set up by wg(8). It has one suite, ChaCha20-Poly1305."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.contestants.contestant import Setting, Tunnel, running
from bench.underlay import INNER, IP_OCTETS, MTU, OUTER, UDP_OCTETS, Ends, underlay
from kinkvpn.demo.lab import POLL_SECONDS, START_SECONDS
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT: Final = 51820
# Type, receiver, counter, tag; what is inside is padded to 16 octets, or up to the MTU.
OVERHEAD: Final = 16 + 16
CONTROL: Final = Path("/var/run/wireguard")


class WireguardGo:
    """Both ends share the directory of control sockets, which are named after devices: so these have names of ours."""

    name = "wireguard-go"

    def obstacle(self) -> str | None:
        found = shutil.which("wireguard-go") and shutil.which("wg")
        return None if found else "apt-get install wireguard-go wireguard-tools"

    def takes(self, setting: Setting) -> bool:
        return setting.suite == Setting().suite

    @contextmanager
    def tunnel(self, setting: Setting, directory: Path) -> Iterator[Tunnel]:
        devices = [f"wg{os.getpid()}{letter}" for letter in "ab"]
        with underlay() as ends, ExitStack() as held:
            daemons = []
            for end, device in zip(ends, devices, strict=True):
                held.callback((CONTROL / f"{device}.sock").unlink, missing_ok=True)
                log = directory / f"{device}.log"
                daemons.append(held.enter_context(running(end, ["wireguard-go", "-f", device], log)))
            for device in devices:
                _wait_controllable(device)
            _configure(ends, devices, setting, directory)
            said = subprocess.run(["wireguard-go", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
            yield Tunnel(
                ends, "chacha20-poly1305", tuple(daemon.pid for daemon in daemons), said.stdout.splitlines()[0]
            )


def _wait_controllable(device: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (CONTROL / f"{device}.sock").exists():
        if time.monotonic() > deadline:
            raise LabFailed("wireguard-go did not start")
        time.sleep(POLL_SECONDS)


def _configure(ends: Ends, devices: list[str], setting: Setting, directory: Path) -> None:
    keys = [directory / f"{side}.key" for side in (0, 1)]
    public = []
    for end, key in zip(ends, keys, strict=True):
        key.touch(mode=0o600)
        key.write_text(end.run(["wg", "genkey"]))
        public.append(end.run(["wg", "pubkey"], stdin=key.read_text()).strip())
    for side, (end, device) in enumerate(zip(ends, devices, strict=True)):
        far = 1 - side
        endpoint = OUTER[setting.outer][far]
        inside = f"{INNER[4][far]}/32,{INNER[6][far]}/128"
        where = f"[{endpoint}]:{PORT}" if setting.outer == 6 else f"{endpoint}:{PORT}"
        command = ["wg", "set", device, "private-key", str(keys[side]), "listen-port", str(PORT)]
        end.run([*command, "peer", public[far], "allowed-ips", inside, "endpoint", where])
        end.ip(
            # Up first: else the kernel makes no route to an IPv6 peer.
            f"link set dev {device} mtu {MTU - IP_OCTETS[setting.outer] - UDP_OCTETS - OVERHEAD} up",
            f"address add {INNER[4][side]} peer {INNER[4][far]} dev {device}",
            f"address add {INNER[6][side]} peer {INNER[6][far]} dev {device} nodad",
        )
