"""What bad input gets from the real command line on a real host: one line per problem, exit code 2, no trace of a try.

Each is read in a terminal 80 columns wide: longer ones are folded at words, and what goes on is indented.

Configurations that are wrong by themselves are in tests/kinkvpn/config/test_refusals.py; here is what a host, a keytab
and a KDC can lack.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.faketime import by_clock
from support.kdc import free_port
from support.lab import amend, answers, control_socket, network_state, start
from support.terminal import terminal

from kinkvpn.demo.lab import KDC_ADDRESS, Host, Lab, kinkvpn
from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

KDC_TIMEOUT = 2.0
START_SECONDS = 60.0
NOBODY = 65534
BOTH = ("up", "check")
COLUMNS = 80


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    """Host a, with nothing running, and a keytab, realm and configuration that are good until a test spoils them."""
    keytab = lab.hosts[0].configuration.parent / "keytab"
    good = keytab.read_bytes()
    amend(lab.hosts[0], "host", kdc_timeout=KDC_TIMEOUT)
    yield lab.hosts[0]
    keytab.write_bytes(good)
    keytab.chmod(0o600)


def run(host: Host, command: str, wrapper: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """``kinkvpn COMMAND`` on the host, behind ``wrapper``, to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KRB5")}
    with terminal(COLUMNS) as screen:
        process = host.namespace.spawn(
            [*wrapper, *kinkvpn(), command, "-c", str(host.configuration)],
            stdout=subprocess.PIPE,
            stderr=screen.end,
            environment=environment,
        )
        try:
            output, _ = process.communicate(timeout=START_SECONDS + KDC_TIMEOUT)
        finally:
            process.kill()
            process.communicate()
        return subprocess.CompletedProcess([command], process.returncode, output, unfolded(screen.shown()))


def unfolded(shown: list[str]) -> str:
    """Whole lines again; that they were readable is checked here."""
    whole = ""
    for before, line in zip(["", *shown], shown, strict=False):
        assert len(line) <= COLUMNS or " " not in line.strip().removeprefix("kinkvpn: "), line
        goes_on = line.startswith("    ")
        if goes_on:
            assert len(before) + 1 + len(line.split()[0]) > COLUMNS, "folded where it need not be"
        whole += f" {line[4:]}" if goes_on else f"\n{line}"
    return whole.removeprefix("\n") + "\n"


def refusal(host: Host, command: str = "up", wrapper: Sequence[str] = ()) -> str:
    """The one line that ``kinkvpn COMMAND`` gives up with; the host is as it was before."""
    line, *more = refusals(host, command, wrapper)
    assert not more
    return line


def refusals(host: Host, command: str = "up", wrapper: Sequence[str] = ()) -> list[str]:
    """Every line that it gives up with, without our name."""
    before = network_state(host)
    done = run(host, command, wrapper)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert network_state(host) == before
    assert "kink0" not in before
    assert not control_socket(host).exists()
    lines = done.stderr.splitlines()
    assert all(line.startswith("kinkvpn: ") for line in lines), done.stderr
    return [line.removeprefix("kinkvpn: ") for line in lines]


# The configuration, once each: their kinds are in tests/kinkvpn/config.


def replaced(host: Host, old: str, new: str) -> None:
    text = host.configuration.read_text()
    assert old in text
    host.configuration.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("command", BOTH)
def test_unknown_key(host: Host, command: str) -> None:
    amend(host, "tun", mtuu=1400)
    line = refusal(host, command)
    assert re.fullmatch(rf"{re.escape(str(host.configuration))}:\d+: .*tun\.mtuu.*", line)
    assert "mtu" in line.partition("mtuu")[2], "what was meant"


@pytest.mark.parametrize("command", BOTH)
def test_bad_subnet(host: Host, command: str) -> None:
    replaced(host, '"10.2.0.0/24"', '"10.2.0.0/33"')
    line = refusal(host, command)
    assert re.fullmatch(rf"{re.escape(str(host.configuration))}:\d+: .*10\.2\.0\.0/33.*expected.*", line)


@pytest.mark.parametrize("command", BOTH)
def test_overlapping_selectors(host: Host, command: str) -> None:
    more = '\n[[peer.policy]]\nlocal = "10.1.0.128/25"\nremote = "10.2.0.0/16"\n'
    host.configuration.write_text(host.configuration.read_text() + more)
    line = refusal(host, command)
    assert "10.1.0.128/25 -> 10.2.0.0/16" in line
    assert "overlaps" in line
    assert "10.1.0.0/24 -> 10.2.0.0/24" in line


# Kerberos.


@pytest.mark.parametrize("command", BOTH)
def test_keytab_missing(host: Host, command: str) -> None:
    keytab = host.configuration.parent / "nowhere"
    amend(host, "host", keytab=str(keytab))
    assert refusal(host, command) == f"keytab {keytab} does not exist"


@pytest.mark.parametrize("command", BOTH)
def test_keytab_unreadable(host: Host, command: str) -> None:
    """Even root cannot, without the capabilities that make it root."""
    keytab = host.configuration.parent / "keytab"
    keytab.chmod(0)
    line = refusal(host, command, without("dac_override", "dac_read_search"))
    assert line == f"keytab {keytab} cannot be read by uid 0: Permission denied"


@pytest.mark.parametrize("command", BOTH)
def test_keytab_that_is_none(host: Host, command: str) -> None:
    keytab = host.configuration.parent / "keytab"
    keytab.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    assert re.match(rf"{re.escape(str(keytab))} is not a keytab: .+", refusal(host, command))


@pytest.mark.parametrize("command", BOTH)
def test_keytab_without_the_principal(lab: Lab, host: Host, command: str) -> None:
    keytab = host.configuration.parent / "keytab"
    keytab.write_bytes((lab.hosts[1].configuration.parent / "keytab").read_bytes())
    assert refusal(host, command) == f"keytab {keytab} has no key of {host.principal}, only of {lab.hosts[1].principal}"


def test_keytab_older_than_the_kdc(lab: Lab, host: Host) -> None:
    """Somebody changed the key and forgot this host."""
    lab.realm.add_service("kink/changed.kinkvpn.test")
    keytab = host.configuration.parent / "changed"
    lab.realm.write_keytab("kink/changed.kinkvpn.test", keytab)
    lab.realm.kadmin("cpw", "-randkey", "kink/changed.kinkvpn.test")
    principal = "kink/changed.kinkvpn.test@KINKVPN.TEST"
    amend(host, "host", principal=principal, keytab=str(keytab))
    line = refusal(host)
    assert f"{KDC_ADDRESS}:88" in line
    assert f"has another key for {principal}" in line
    assert str(keytab) in line


def test_principal_unknown_to_the_kdc(lab: Lab, host: Host) -> None:
    lab.realm.add_service("kink/gone.kinkvpn.test")
    keytab = host.configuration.parent / "gone"
    lab.realm.write_keytab("kink/gone.kinkvpn.test", keytab)
    lab.realm.kadmin("delprinc", "-force", "kink/gone.kinkvpn.test")
    amend(host, "host", principal="kink/gone.kinkvpn.test@KINKVPN.TEST", keytab=str(keytab))
    line = refusal(host)
    assert f"{KDC_ADDRESS}:88" in line
    assert "does not know us as kink/gone.kinkvpn.test@KINKVPN.TEST" in line


def test_kdc_that_is_not_there(lab: Lab, host: Host) -> None:
    lab.realm.stop()
    try:
        line = refusal(host)
    finally:
        lab.realm.start()
    assert re.search(rf"no answer from the KDC of {lab.realm.name} \({KDC_ADDRESS}:88\) in \d\.\d s", line)


def test_kdc_that_never_answers(lab: Lab, host: Host) -> None:
    """It is given up at kdc_timeout, whatever libkrb5 does with its 27 seconds."""
    assert lab.realm.pid is not None
    os.kill(lab.realm.pid, signal.SIGSTOP)
    try:
        line = refusal(host)
    finally:
        os.kill(lab.realm.pid, signal.SIGCONT)
    told = re.search(rf"no answer from the KDC of {lab.realm.name} \({KDC_ADDRESS}:88\) in (\d+\.\d) s", line)
    assert told
    assert KDC_TIMEOUT <= float(told[1]) < 20


@pytest.mark.parametrize("preauthentication", ["-requires_preauth", "+requires_preauth"])
@pytest.mark.parametrize("timesync", [0, 1])
@pytest.mark.parametrize("offset", [-600, 600])
def test_clock_skew(lab: Lab, host: Host, offset: int, timesync: int, preauthentication: str) -> None:
    """Whether libkrb5 makes up for it or not: what peers send would be judged by the wrong clock."""
    lab.realm.kadmin("modprinc", preauthentication, host.principal)
    conf = host.configuration.parent / "krb5.conf"
    conf.write_text(
        lab.realm.krb5_conf.read_text().replace("[libdefaults]", f"[libdefaults]\nkdc_timesync = {timesync}")
    )
    amend(host, "host", krb5_config=str(conf))
    try:
        line = refusal(host, wrapper=by_clock(FAKETIME=f"{offset:+d}s"))
    finally:
        lab.realm.kadmin("modprinc", "-requires_preauth", host.principal)
    assert "clock skew: " in line
    assert f"the KDC of {lab.realm.name} ({KDC_ADDRESS}:88)" in line
    if timesync:
        assert re.search(
            rf"this host's clock is (599|600|601) s {'ahead of' if offset > 0 else 'behind'} that of", line
        )
    else:
        assert "by more than 300 s" in line


@pytest.mark.parametrize("command", BOTH)
def test_unsupported_enctypes(directory: Path, host: Host, command: str) -> None:
    """A realm that has not heard of RFC 6649 and RFC 8429."""
    with weak_realm(directory / command) as realm:
        keytab = directory / command / "keytab"
        amend(host, "host", keytab=str(keytab), krb5_config=str(realm.krb5_conf))
        line = refusal(host, command)
    assert line.startswith(f"keytab {keytab} has keys of {host.principal} for refused enctypes only: ")
    assert "arcfour-hmac" in line
    assert "aes256" in line, "what would do"


def weak_realm(directory: Path) -> Realm:
    """One with RC4 and DES3 only, on loopback, with the principal of host a in ``keytab`` beside it."""
    directory.mkdir()
    realm = Realm(directory / "realm", free_port(), enctypes=(23, 16))
    with realm:
        realm.add_service("kink/a.kinkvpn.test")
        realm.write_keytab("kink/a.kinkvpn.test", directory / "keytab")
    return realm


# Capabilities and devices.


def without(*capabilities: str) -> tuple[str, ...]:
    """Runs a command as the same user but for these capabilities."""
    return ("setpriv", "--bounding-set", ",".join(f"-{name}" for name in capabilities), "--")


def test_without_net_admin(host: Host) -> None:
    line = refusal(host, wrapper=without("net_admin"))
    assert re.fullmatch(
        r"device kink0: uid 0 lacks CAP_NET_ADMIN \(CapEff [0-9a-f]{16}\): "
        r"run as root, or with AmbientCapabilities=CAP_NET_ADMIN; `kinkvpn run` needs none",
        line,
    )


def test_without_net_bind_service(host: Host) -> None:
    line = refusal(host, wrapper=without("net_bind_service"))
    assert line.startswith("port 192.0.2.1:910/udp: uid 0 lacks CAP_NET_BIND_SERVICE (CapEff ")


def test_a_user_that_is_nobody(host: Host) -> None:
    """It can read everything, wherever this is installed; what it lacks is told at once."""
    may_read = ("--inh-caps", "+dac_read_search,+dac_override", "--ambient-caps", "+dac_read_search,+dac_override")
    user = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *may_read, "--")
    port, device = refusals(host, wrapper=user)
    assert port.startswith(f"port 192.0.2.1:910/udp: uid {NOBODY} lacks CAP_NET_BIND_SERVICE (CapEff ")
    assert device.startswith(f"device kink0: uid {NOBODY} lacks CAP_NET_ADMIN (CapEff ")


def test_no_tun_device(host: Host) -> None:
    """/dev/net is empty, for this process only. Unless told otherwise it would be a veth pair."""
    amend(host, "tun", device="tun")
    script = 'mount -t tmpfs none /dev/net && exec "$@"'
    line = refusal(host, wrapper=("unshare", "--mount", "--", "sh", "-c", script, "sh"))
    assert "/dev/net/tun" in line
    assert "modprobe tun" in line


@pytest.mark.parametrize("port", [910, 4500])
def test_port_taken(host: Host, port: int) -> None:
    script = f"""
import socket
taken = socket.socket(type=socket.SOCK_DGRAM)
taken.bind(("0.0.0.0", {port}))
print(flush=True)
input()
"""
    holder = subprocess.Popen(
        [*host.namespace.prefix, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        line = refusal(host)
    finally:
        holder.kill()
        holder.communicate()
    assert line.startswith(f"port 192.0.2.1:{port}/udp is taken by pid {holder.pid} (")


def test_already_running(lab: Lab, host: Host) -> None:
    """Says so before it looks at ports and devices, and does the one that runs no harm."""
    start(lab, host)
    done = run(host, "up")
    assert done.returncode == 2
    assert done.stderr == f"kinkvpn: already running, pid {host.pid} (control socket {control_socket(host)})\n"
    assert answers(host)


def test_address_that_is_not_ours(host: Host) -> None:
    amend(host, "kink", listen=["192.0.2.77"])
    assert refusals(host) == [
        f"port 192.0.2.77:{port}/udp: 192.0.2.77 is no address of this host" for port in (910, 4500)
    ]


@pytest.mark.parametrize("command", BOTH)
def test_peer_that_does_not_resolve(host: Host, command: str) -> None:
    amend(host, "[peer]", address="no-such-host.invalid")
    line = refusal(host, command)
    assert line.startswith("peer b: no-such-host.invalid does not resolve: ")


def test_every_problem_has_its_line(host: Host) -> None:
    """`check` says everything that it can find out at once."""
    amend(host, "host", keytab="/nowhere/keytab")
    amend(host, "[peer]", address="no-such-host.invalid")
    done = run(host, "check")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("kinkvpn: ") for line in lines)


def test_network_that_is_in_the_way(host: Host) -> None:
    """The last step can fail too, and takes back what was done before it."""
    host.namespace.ip("route add 10.2.0.0/24 dev wire")
    try:
        line = refusal(host)
    finally:
        host.namespace.ip("route del 10.2.0.0/24 dev wire")
    assert "kink0" in line
