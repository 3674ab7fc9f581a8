"""This host, with something wrong with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.doctor import configuration, found, patient
from support.kdc import free_port

from esp.offload import ALL_OFFLOADS, OF_TUN, Grant, Offload
from esp.tun import TunDevice
from kinkvpn.doctor import host
from kinkvpn.doctor.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

# It can read everything, wherever this is installed.
MAY_READ = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *MAY_READ, "--")


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may look into, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="kinkvpn-doctor-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(*arguments: str, cwd: Path) -> dict[str, Any]:
    """``kinkvpn doctor --json`` of a user without any capability."""
    command = [*NOBODY, sys.executable, "-m", "kinkvpn", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=120)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit"]
    return {each["name"]: each for each in answer["findings"]}


def test_the_portable_engine_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESP_ENGINE", "portable")
    assert found(host.engine(patient(None)))["engine-portable"].severity is Severity.NOTE


def test_an_engine_that_there_is_not_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESP_ENGINE", "fast")
    assert 'ESP_ENGINE = "fast"' in found(host.engine(patient(None)))["engine-refused"].line
    monkeypatch.delenv("ESP_ENGINE")
    chosen = found(host.engine(patient(configuration(sections='[esp]\nengine = "auto"'))))
    assert set(chosen) == {"engine"}
    assert "ciphers of" in chosen["engine"].line


def test_ports_that_are_taken_and_by_whom() -> None:
    kink, esp = free_port(), free_port()
    sections = f'[kink]\nlisten = ["127.0.0.1"]\nport = {kink}\n[esp]\nport = {esp}\n'
    who = patient(configuration(sections=sections))
    assert found(host.ports(who))["ports"].line == f"UDP ports {kink} and {esp} are free"
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", esp))
        (finding,) = host.ports(who)
    assert finding.name == "port-taken"
    assert f"{esp}/udp is taken by pid {os.getpid()}" in finding.line
    assert finding.command == f"ss -lunp 'sport = :{esp}'"


def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    kink, esp = free_port(), free_port()
    sections = f'[kink]\nlisten = ["192.0.2.77"]\nport = {kink}\n[esp]\nport = {esp}\n'
    findings = list(host.ports(patient(configuration(sections=sections))))
    assert [finding.name for finding in findings] == ["port-refused", "port-refused"]
    assert "no address of this host" in findings[0].line


def test_the_daemon_keeps_its_ports_and_its_device() -> None:
    who = patient(configuration())
    who.status = {
        "pid": 77,
        "tun": {"name": "kink0", "mtu": 1400},
        "offloads": {"tso": None, "udp_gro": "the kernel has none"},
        "peers": [
            {
                "name": "east",
                "policies": [
                    {
                        "local": "10.1.0.0/24",
                        "remote": "10.2.0.0/24",
                        "state": "down",
                        "last_error": "no answer from 192.0.2.2",
                    }
                ],
            }
        ],
    }
    assert set(found(host.ports(who))) == {"ports"}
    seen = found(host.device(who))
    assert "kink0, MTU 1400" in seen["device"].line
    assert seen["offload"].line == "no udp_gro: the kernel has none"
    assert list(host.raw(who)) == []
    told = found(host.daemon(who))
    assert told["daemon"].line == "a daemon runs, pid 77"
    assert "no answer from 192.0.2.2" in told["tunnel-down"].line
    who.status, who.daemon_hidden = None, True
    assert set(found(host.device(who))) == {"device"}


@pytest.mark.root
def test_root_lacks_nothing() -> None:
    assert set(found(host.capabilities(patient(None)))) == {"capabilities"}


def test_no_daemon_is_a_note() -> None:
    assert found(host.daemon(patient(None)))["daemon-down"].severity is Severity.NOTE


def test_an_offload_that_is_refused_is_a_note_each() -> None:
    grant = Grant(ALL_OFFLOADS, OF_TUN)
    grant.refuse("this kernel is older than that", Offload.USO)
    (finding,) = host.refused_offloads(grant)
    assert (finding.name, finding.line) == ("offload", "no uso: this kernel is older than that")


@pytest.mark.root
def test_a_device_that_somebody_has() -> None:
    name = f"kd{os.getpid()}"[:15]
    who = patient(configuration(sections=f'[tun]\nname = "{name}"\n'))
    assert set(found(host.device(who))) >= {"device"}
    device = TunDevice(name)
    try:
        taken = found(host.device(who))["device-taken"]
    finally:
        device.close()
    assert f"pid {os.getpid()}" in taken.line
    assert taken.severity is Severity.ERROR


@pytest.mark.root
def test_a_host_without_the_device_node() -> None:
    """A mount namespace with an empty /dev/net, as a container without --device has none."""
    script = (
        "mount -t tmpfs none /dev/net && exec "
        f"{sys.executable} -c 'from support.doctor import *; from kinkvpn.doctor import host;"
        "print(*(f.name for f in host.device(patient(configuration()))))'"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["device-missing"]


@pytest.mark.root
def test_an_ordinary_user(public: Path) -> None:
    """Everything that root may and he may not, and a daemon that is not his to ask."""
    directory = public
    port = free_port()
    sections = f'[kink]\nport = 911\n[esp]\nport = {port}\n[control]\nsocket = "control"\n'
    file = directory / "kinkvpn.toml"
    host_section = '[host]\nprincipal = "kink/west.example.com@EXAMPLE.COM"\nccache = "FILE:/nowhere"\n'
    file.write_text(
        f'{host_section}{sections}[[peer]]\nname = "east"\nprincipal = "kink/east.example.com@EXAMPLE.COM"\n'
        'address = "192.0.2.2"\nencapsulation = "raw"\n'
        '[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'
    )
    answer = as_nobody("-c", str(file), cwd=directory)
    assert answer["capabilities-missing"]["severity"] == "note"
    assert "CAP_NET_BIND_SERVICE" in answer["port-refused"]["line"]
    assert answer["device-refused"]["command"]
    assert "CAP_NET_RAW" in answer["raw-refused"]["line"]
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(directory / "control"))
        (directory / "control").chmod(0o600)
        daemon.listen()
        answer = as_nobody("-c", str(file), cwd=directory)
    assert "uid 65534 may not ask it" in answer["daemon-hidden"]["line"]
    assert not {"port-refused", "raw-refused"} & answer.keys()


@pytest.mark.root
def test_a_kernel_that_makes_no_user_namespaces() -> None:
    """In a user namespace of our own, in which there may be no further one."""
    script = (
        "echo 0 > /proc/sys/user/max_user_namespaces && exec "
        f"{sys.executable} -c 'from kinkvpn.doctor import host; from kinkvpn.doctor.examination import Patient;"
        "print(*(word for f in host.namespaces(Patient(None)) for word in (f.name, f.command)))'"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split(maxsplit=1) == ["namespaces-refused", "sysctl -w user.max_user_namespaces=10000\n"]
    assert "namespaces" in found(host.namespaces(patient(None)))
