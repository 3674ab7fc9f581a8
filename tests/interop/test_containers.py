"""What works in containers of all kinds, as a user without an account: bubblewrap makes them, and setpriv."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.lab import status
from support.traveller import Traveller
from support.unprivileged import ROOT

from kinkvpn.demo.lab import Lab, kinkvpn, policies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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


def test_a_device_that_is_wanted_and_not_there_is_told(traveller: Traveller) -> None:
    done = contained(traveller, (*NO_DEVICE, "--unshare-user"), "--device", "tun")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "kinkvpn: no /dev/net/tun: run `modprobe tun`, give the container `--device /dev/net/tun`, "
        'or have [tun] device = "veth"\n'
    )


@pytest.mark.parametrize("container", [DEVICE, NO_DEVICE], ids=["device", "no device"])
def test_a_container_without_user_namespaces_is_told_the_way_out(
    traveller: Traveller, container: Sequence[str]
) -> None:
    done = contained(traveller, (*container, "--unshare-user", "--disable-userns"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("kinkvpn: no user namespace for uid 12345: user.max_user_namespaces ")
    assert line.endswith("`sysctl -w user.max_user_namespaces=10000` as root; `kinkvpn proxy` needs none")


@contextmanager
def daemon(traveller: Traveller, *capabilities: str, before: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The status of ``kinkvpn up`` as the user with these ``capabilities``, once it answers."""
    text = traveller.configuration.read_text().replace("[kink]\n", '[kink]\nover = "4500"\n')
    traveller.configuration.write_text(text.replace('start = "demand"', 'start = "boot"'))
    wrapped = traveller.wrapped(*capabilities, before=before)
    with (traveller.directory / "log").open("w") as log:
        process = subprocess.Popen(
            [*wrapped, *kinkvpn(), "up", "-c", str(traveller.configuration)],
            env=traveller.environment,
            stdout=log,
            stderr=log,
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
    with daemon(traveller, *capabilities, before=before):
        devices = traveller.host.namespace.run(["ip", "link", "show"])
        assert ("kink0~" in devices) == bool(before)
        traveller.host.namespace.run(list(PING))
        assert {one["state"] for one in policies(status(traveller.gateway))} == {"established"}
    assert "kink0" not in traveller.host.namespace.run(["ip", "link", "show"])


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
        pytest.skip(f"podman does not run here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "3 received" in done.stdout
    assert "kink0~" in done.stdout
