"""This host, with something wrong with it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytun
from support.doctor import HOST, answered, configuration, found, patient, written
from support.kdc import free_port
from support.namespaces import run

from esp.tun import TunDevice
from kinkvpn.doctor import host
from kinkvpn.doctor.finding import Severity
from kinkvpn.proxy import lwip

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
    return answered(done.returncode, done.stdout)


def peer_that_calls(directory: Path) -> Path:
    """A configuration of nobody's, whose peer has to call and asks for raw ESP."""
    file = directory / "kinkvpn.toml"
    host_section = '[host]\nprincipal = "kink/west.example.com@EXAMPLE.COM"\nccache = "FILE:/nowhere"\n'
    sections = (
        f'[kink]\nport = 911\n[esp]\nport = {free_port()}\n[control]\nsocket = "control"\n[tun]\ndevice = "tun"\n'
    )
    file.write_text(
        f'{host_section}{sections}[[peer]]\nname = "east"\nprincipal = "kink/east.example.com@EXAMPLE.COM"\n'
        'encapsulation = "raw"\n[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'
    )
    return file


@pytest.mark.provokes("engine-portable")
def test_the_portable_engine_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESP_ENGINE", "portable")
    assert found(host.engine(patient(None)))["engine-portable"].severity is Severity.NOTE


@pytest.mark.provokes("engine", "engine-refused")
def test_an_engine_that_there_is_not_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESP_ENGINE", "fast")
    assert 'ESP_ENGINE = "fast"' in found(host.engine(patient(None)))["engine-refused"].line
    monkeypatch.delenv("ESP_ENGINE")
    chosen = found(host.engine(patient(configuration(sections='[esp]\nengine = "auto"'))))
    assert set(chosen) == {"engine"}
    assert "ciphers of" in chosen["engine"].line


@pytest.mark.provokes("ports", "port-taken")
def test_ports_that_are_taken_and_by_whom() -> None:
    kink, esp = free_port(), free_port()
    sections = f'[kink]\nlisten = ["127.0.0.1"]\nport = {kink}\n[esp]\nport = {esp}\n'
    who = patient(configuration(sections=sections))
    assert found(host.ports(who))["ports"].line == f"UDP ports {kink} and {esp} are free"
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", esp))
        finding = found(host.ports(who))["port-taken"]
    assert f"{esp}/udp is taken by pid {os.getpid()}" in finding.line
    assert finding.command == f"ss -lunp 'sport = :{esp}'"


@pytest.mark.provokes("port-refused")
def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    kink, esp = free_port(), free_port()
    sections = f'[kink]\nlisten = ["192.0.2.77"]\nport = {kink}\n[esp]\nport = {esp}\n'
    assert (
        "no address of this host" in found(host.ports(patient(configuration(sections=sections))))["port-refused"].line
    )


@pytest.mark.provokes("capabilities")
@pytest.mark.root
def test_root_lacks_nothing() -> None:
    assert set(found(host.capabilities(patient(None)))) == {"capabilities"}


@pytest.mark.provokes("device", "device-taken")
@pytest.mark.root
def test_a_device_that_somebody_has(tmp_path: Path) -> None:
    name = f"kd{os.getpid()}"[:15]
    who = patient(written(tmp_path, HOST, sections=f'[tun]\nname = "{name}"\n'))
    assert set(found(host.device(who))) >= {"device"}
    device = TunDevice(name)
    try:
        taken = found(host.device(who))["device-taken"]
    finally:
        device.close()
    assert f"pid {os.getpid()}" in taken.line
    assert taken.severity is Severity.ERROR
    assert taken.setting is not None
    assert taken.setting.section == "[tun]"
    assert re.fullmatch(r'name = "kink\d+"', taken.setting.line)


@pytest.mark.provokes("offload")
@pytest.mark.root
def test_a_device_that_spares_nothing() -> None:
    """Whoever starts the daemon has opened it without the headers that offloads go by (tun(4), IFF_VNET_HDR)."""
    given = pytun.TunTapDevice(name=f"kd{os.getpid()}"[:15], flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
    descriptor = given.fileno()
    try:
        sections = f'[tun]\nfd = {descriptor}\n[offload]\nuso = "off"\n[esp]\nengine = "native"\n'
        answer = found(host.device(patient(configuration(sections=sections))))
    finally:
        given.close()
    assert answer["device"].line == f"descriptor {descriptor} is a TUN device"
    assert answer["offload"].line == "no tso, coalesce: whoever opened the device did so without vnet headers"
    gone = found(host.device(patient(configuration(sections=sections))))
    assert set(gone) == {"device-refused"}
    assert "whoever starts the daemon opens the device" in gone["device-refused"].why


@pytest.mark.root
def test_a_device_that_is_a_pair(tmp_path: Path) -> None:
    name = f"kd{os.getpid()}"[:15]
    who = patient(written(tmp_path, HOST, sections=f'[tun]\nname = "{name}"\ndevice = "veth"\n'))
    assert found(host.device(who))["device"].line == f"{name} can be made, a pair of veth devices"
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name[:14]}x")
    try:
        taken = found(host.device(who))["device-taken"]
    finally:
        run("ip", "link", "del", name)
    assert taken.command == f"ip link show {name}"


@pytest.mark.provokes("device-taken")
@pytest.mark.root
def test_a_device_whose_name_something_of_another_kind_has(tmp_path: Path) -> None:
    name = f"kd{os.getpid()}"[:15]
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name[:14]}x")
    try:
        who = patient(written(tmp_path, HOST, sections=f'[tun]\nname = "{name}"\ndevice = "tun"\n'))
        assert found(host.device(who))["device-taken"].command == f"ip link show {name}"
    finally:
        run("ip", "link", "del", name)


def covered(place: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """What is found in a mount namespace with nothing in ``place``, as in a container that was not given it."""
    command = shlex.join([sys.executable, "-m", "kinkvpn", "doctor", "--json", *arguments])
    script = f"mount -t tmpfs none {place} && exec {command}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=120)
    return answered(done.returncode, done.stdout)


@pytest.mark.provokes("device-missing")
@pytest.mark.root
def test_a_host_without_the_device_node(public: Path) -> None:
    missing = covered("/dev/net", "-c", str(peer_that_calls(public)))["device-missing"]
    assert missing["command"] == "modprobe tun"


@pytest.mark.provokes("failed")
@pytest.mark.root
def test_a_host_that_does_not_show_itself(public: Path) -> None:
    """What one look cannot do without stops no other."""
    answer = covered("/proc", "-c", str(peer_that_calls(public)))
    assert answer["failed"]["line"].startswith("capabilities: could not be looked at: ")
    assert "engine" in answer


@pytest.mark.provokes(
    "capabilities-missing", "port-refused", "device-refused", "raw-refused", "daemon-down", "daemon-hidden"
)
@pytest.mark.root
def test_an_ordinary_user(public: Path) -> None:
    """Everything that root may and he may not, and a daemon that is not his to ask."""
    directory, file = public, peer_that_calls(public)
    answer = as_nobody("-c", str(file), cwd=directory)
    assert answer["capabilities-missing"]["severity"] == "note"
    assert "CAP_NET_BIND_SERVICE" in answer["port-refused"]["line"]
    assert answer["device-refused"]["command"]
    assert answer["daemon-down"]["severity"] == "note"
    assert "CAP_NET_RAW" in answer["raw-refused"]["line"]
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(directory / "control"))
        (directory / "control").chmod(0o600)
        daemon.listen()
        answer = as_nobody("-c", str(file), cwd=directory)
    assert "uid 65534 may not ask it" in answer["daemon-hidden"]["line"]
    assert {"ports", "device"} <= answer.keys()
    assert not {"port-refused", "raw-refused"} & answer.keys()


def without_lwip(directory: Path) -> str:
    """For sh(1), in a mount namespace: none that loads."""
    (directory / "empty").touch()
    return "".join(
        f"mount --bind {directory}/empty {shlex.quote(str(each))} && " for each in lwip.HERE.glob("_stack.*.so")
    )


@pytest.mark.root
def test_an_ordinary_user_without_a_configuration(public: Path) -> None:
    """There are run, proxy and, by sudo, up to a gateway: nothing is wrong, and ports and devices are no matter."""
    answer = as_nobody(cwd=public)
    assert {name for name, each in answer.items() if each["severity"] not in ("ok", "note")} == set()
    assert not {"port-refused", "device-refused", "daemon-down"} & answer.keys()
    assert answer["capabilities-missing"]["severity"] == "note"
    assert "kinkvpn run and kinkvpn proxy need none" in answer["capabilities-missing"]["why"]
    (public / "cache").touch()
    told = as_nobody("gw.example.com", cwd=public)["capabilities-missing"]
    assert told["command"] == "sudo kinkvpn up gw.example.com"


@pytest.mark.root
def test_an_ordinary_user_with_neither_namespaces_nor_lwip_has_nothing(public: Path) -> None:
    script = f"{without_lwip(public)}echo 0 > /proc/sys/user/max_user_namespaces && exec "
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "kinkvpn", "doctor", "--json"]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script + shlex.join(command)],
        capture_output=True,
        text=True,
        check=False,
    )
    answer = answered(done.returncode, done.stdout)
    assert (answer["namespaces-refused"]["severity"], answer["proxy-refused"]["severity"]) == ("warning", "error")


@pytest.mark.provokes("namespaces-refused", "namespaces", "proxy", "proxy-refused")
@pytest.mark.root
def test_a_kernel_that_makes_no_user_namespaces(public: Path) -> None:
    """In a user namespace of our own, in which there may be no further one; nor an lwIP that loads."""
    command = [sys.executable, "-m", "kinkvpn", "doctor", "--json", "-c", str(peer_that_calls(public))]
    script = f"{without_lwip(public)}echo 0 > /proc/sys/user/max_user_namespaces && exec {shlex.join(command)}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    answer = answered(done.returncode, done.stdout)
    assert answer["namespaces-refused"]["command"] == "sysctl -w user.max_user_namespaces=10000"
    assert "lwIP is " in answer["proxy-refused"]["line"]
    assert found(host.namespaces(patient(None)))["namespaces"].line.endswith("with a TUN device")


@pytest.mark.root
def test_a_network_of_ones_own_without_the_device_node() -> None:
    script = (
        "mount -t tmpfs none /dev/net && exec "
        f"{sys.executable} -c 'from kinkvpn.doctor import host; from kinkvpn.doctor.examination import Patient;"
        "print(*(f.line for f in host.namespaces(Patient(None))))'"
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert "with a veth pair (no /dev/net/tun: run `modprobe tun`" in done.stdout
