"""What works in containers of all kinds, as a user without an account: bubblewrap makes them, and setpriv."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytun
from support.lab import network_state, status, within
from support.traveller import Traveller
from support.unprivileged import ROOT

from kinkvpn.demo.lab import Lab, kinkvpn, policies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kinkvpn.demo.namespace import Namespace

pytestmark = [pytest.mark.root, pytest.mark.kdc]

WAIT_SECONDS = 60.0
PODMAN_SECONDS = 180.0
PODMAN_S_OWN = (125, 126, 127)  # podman-run(1): it failed itself, or could not start the command
PING = ("ping", "-c", "3", "-i", "0.2", "10.2.0.1")
BARE = ("bwrap", "--bind", "/", "/", "--proc", "/proc")
DEVICE = (*BARE, "--dev-bind", "/dev", "/dev")
NO_DEVICE = (*BARE, "--dev", "/dev")
HIDDEN = "mount -t tmpfs none /dev/net"


@pytest.fixture
def traveller(lab: Lab, directory: Path) -> Traveller:
    return Traveller(lab, directory)


def contained(traveller: Traveller, container: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """``kinkvpn run`` of a ping and a look at the devices, in ``container``."""
    asked = (
        "run",
        "-c",
        str(traveller.configuration),
        *options,
        "--",
        "sh",
        "-c",
        f"{' '.join(PING)} && cat /proc/net/dev",
    )
    return subprocess.run(
        [*traveller.prefix, *container, *kinkvpn(), *asked],
        env=traveller.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(("container", "end"), [(DEVICE, ""), (NO_DEVICE, "kink0~")], ids=["device", "no device"])
def test_user_namespaces_are_enough(traveller: Traveller, container: Sequence[str], end: str) -> None:
    """With neither capability; and a veth pair takes the place of a device that is not there."""
    done = contained(traveller, (*container, "--unshare-user"))
    assert done.returncode == 0, done.stderr
    assert ("kink0~" in done.stdout) == bool(end)


def test_a_container_without_user_namespaces_is_told_the_way_out(traveller: Traveller) -> None:
    """Other refusals are in tests/interop/test_obstacles.py."""
    done = contained(traveller, (*NO_DEVICE, "--unshare-user", "--disable-userns"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("kinkvpn: no user namespace for uid 12345: user.max_user_namespaces ")
    assert line.endswith("`sysctl -w user.max_user_namespaces=10000` as root; `kinkvpn proxy` needs none")


@contextmanager
def daemon(
    traveller: Traveller,
    *capabilities: str,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    descriptors: Sequence[int] = (),
) -> Iterator[dict[str, Any]]:
    """The status of ``kinkvpn up`` as the user with these ``capabilities``, once it answers.

    Args:
        traveller: whose.
        capabilities: that the user has.
        before: lines for sh(1), for root.
        after: put before the command line that the user runs.
        descriptors: that all of them have.
    """
    text = traveller.configuration.read_text()
    traveller.configuration.write_text(text.replace('start = "demand"', 'start = "boot"'))
    wrapped = [*traveller.wrapped(*capabilities, before=before), *after]
    with (traveller.directory / "log").open("w") as log:
        process = subprocess.Popen(
            [*wrapped, *kinkvpn(), "up", "-c", str(traveller.configuration)],
            env=traveller.environment,
            stdout=log,
            stderr=log,
            pass_fds=descriptors,
        )
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not established(asked := ask(traveller)):
            assert process.poll() is None, (traveller.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield asked
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def without_low_port(traveller: Traveller) -> None:
    """Has KINK go over ESP's port alone."""
    text = traveller.configuration.read_text()
    traveller.configuration.write_text(text.replace("[kink]\n", '[kink]\nover = "4500"\n'))


def ask(traveller: Traveller) -> dict[str, Any]:
    done = subprocess.run(
        [*kinkvpn(), "status", "--json", "--socket", str(traveller.directory / "control")],
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else {}


def established(asked: dict[str, Any]) -> bool:
    return bool(asked) and all(policy["state"] == "established" for policy in policies(asked))


@pytest.mark.parametrize(
    ("capabilities", "before"),
    [(("net_admin",), ()), (("net_admin", "net_raw"), (HIDDEN,))],
    ids=["NET_ADMIN and the device", "NET_ADMIN, NET_RAW and no device"],
)
def test_two_capabilities_or_one_and_the_device_are_a_daemon(
    traveller: Traveller, capabilities: Sequence[str], before: Sequence[str]
) -> None:
    """As any user: with a TUN, or with a veth pair that is gone at the end."""
    without_low_port(traveller)
    with daemon(traveller, *capabilities, before=before):
        devices = traveller.host.namespace.run(["ip", "link", "show"])
        assert ("kink0~" in devices) == bool(before)
        traveller.host.namespace.run(list(PING))
        assert {one["state"] for one in policies(status(traveller.gateway))} == {"established"}
    assert "kink0" not in traveller.host.namespace.run(["ip", "link", "show"])


# What a service manager does last (sd_listen_fds(3)): descriptors from 3 on, and for this process alone.
ACTIVATED = ("bash", "-c", 'export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=kink:esp; exec "${@:3}" 3<&$1 4<&$2', "sh")


def opened(namespace: Namespace, addresses: Sequence[str], routes: Sequence[str]) -> int:
    """A TUN device there, with addresses and routes, for somebody who may do none of it."""
    device = pytun.TunTapDevice(name="kink0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
    namespace.ip(
        "link set kink0 up mtu 1400",
        *(f"address add {address} dev kink0 nodad" for address in addresses),
        *(f"route add {route} dev kink0" for route in routes),
    )
    return os.dup(device.fileno())


def bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    return sock


def test_a_daemon_without_any_capability_lives_on_descriptors_that_it_is_given(traveller: Traveller) -> None:
    """A device and two sockets, opened by whoever may: with both ports of KINK, to a peer that knows the way."""
    host, gateway = traveller.host, traveller.gateway
    routes = [str(subnet) for subnet in gateway.site.subnets]
    with ExitStack() as held:
        device = within(host.namespace, lambda: opened(host.namespace, host.site.inner, routes))
        held.callback(os.close, device)
        kink, esp = (
            held.enter_context(within(host.namespace, lambda port=port: bound(host.site.wire, port)))
            for port in (910, 4500)
        )
        text = traveller.configuration.read_text()
        traveller.configuration.write_text(text.replace("[tun]\n", f"[tun]\nfd = {device}\n"))
        before = network_state(host)
        numbers = kink.fileno(), esp.fileno()
        after = [*ACTIVATED, *map(str, numbers)]
        with daemon(traveller, after=after, descriptors=[device, *numbers]) as asked:
            assert asked["listeners"] == {"kink": [f"{host.site.wire}:910"], "esp": [f"{host.site.wire}:4500"]}
            rights = (Path("/proc") / str(asked["pid"]) / "status").read_text()
            assert {int(value, 16) for value in re.findall(r"^Cap\w+:\s+(\w+)$", rights, re.MULTILINE)} == {0}
            for version in (4, 6):
                host.namespace.run(["ping", "-c", "3", "-i", "0.2", gateway.site.inner_address(version)])
            assert network_state(host) == before, "all of it is somebody else's"


PODMAN = """
set -e
umount /sys/fs/cgroup/unified 2>/dev/null || true
mount --make-rshared / 2>/dev/null || true
mkdir -p {root}/usr {root}/dev {root}/proc {root}/sys {root}/tmp {root}/etc {root}/run {root}/var {home}
for each in bin sbin lib lib64; do ln -sfn usr/$each {root}/$each; done
cp /etc/passwd {home}/passwd
echo "somebody:x:12345:12345::{home}:/bin/sh" >>{home}/passwd
mount --bind {home}/passwd /etc/passwd
chown -R 12345:12345 {root} {home}"""


def test_rootless_podman_as_it_is(traveller: Traveller, directory: Path) -> None:
    """No capability, no device: the seccomp profile of podman lets user namespaces be. The files of this clone and of
    the traveller are the only ones of the host in there. Where podman cannot work (it needs cgroups or an account that
    not every machine of a CI gives it) its own words say so.
    """
    root, home = directory / "podman-root", directory / "podman-home"
    wrapped = traveller.wrapped(before=[PODMAN.format(root=root, home=home)])
    volumes = dict.fromkeys([*map(str, (ROOT, sys.prefix, sys.base_prefix, traveller.directory)), "/usr"])
    podman = [
        *("podman", "run", "--rm", "--cgroups=disabled", "--network=host", "--env", "ESP_ENGINE"),
        *("--env", f"XDG_RUNTIME_DIR={traveller.directory}", "--env", f"KRB5_CONFIG={traveller.directory}/krb5.conf"),
        *(part for path in volumes for part in ("-v", f"{path}:{path}:{'ro' if path == '/usr' else 'rw'}")),
        *("--rootfs", str(root)),
    ]
    environment = traveller.environment | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}

    script = f"{' '.join(PING)}; cat /proc/net/dev"
    asked = ("run", "-c", str(traveller.configuration), "--", "sh", "-c", script)
    try:
        done = subprocess.run(
            [*wrapped, *podman, *kinkvpn(), *asked],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PODMAN_SECONDS,
            check=False,
        )
    finally:
        for pause in home.rglob("pause.pid"):  # what keeps podman's namespaces for the next one
            os.kill(int(pause.read_text()), signal.SIGKILL)
    if done.returncode in PODMAN_S_OWN:
        # Podman's own refusal, not kinkvpn's: an unprivileged or nested CI machine gives no cgroups, mounts or subuids,
        # and nothing that is installed changes that. What kinkvpn does in such a container bubblewrap shows above.
        pytest.skip(f"podman does not run here: {done.stderr.strip()}")  # a nested machine may lack what it needs
    assert done.returncode == 0, done.stderr
    assert "3 received" in done.stdout
    assert "kink0~" in done.stdout
