"""Real daemons: what they refuse to start on, how they stop, what a crash leaves. In namespaces, with a real KDC."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.kdc import free_port
from support.manual import pair

from esp.native import why_missing
from kinkvpn.api.control import ControlUnavailable
from kinkvpn.config import HostSettings
from kinkvpn.demo.lab import Lab
from kinkvpn.demo.namespace import Namespace
from kinkvpn.demo.realm import Realm
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.tickets import TicketSource
from kinkvpn.keylog import KeyLog
from kinkvpn.proto.ports import TgtDenied
from kinkvpn.service import daemon
from kinkvpn.service.daemon import (
    Refusals,
    open_acceptor,
    open_key_log,
    write_keys,
)
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIGURATION = """\
[host]
principal = "kink/a.test@KINKVPN.TEST"
keytab = "a.keytab"
krb5_config = "realm/krb5.conf"
kdc_timeout = 1.0
[tun]
addresses = ["10.1.0.1/24"]
[control]
socket = "k.sock"
[[peer]]
name = "b"
principal = "kink/b.test@KINKVPN.TEST"
address = "192.0.2.2"
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
"""

DAEMON_SECONDS = 30.0  # a Python process that starts, on a machine with better things to do


# What needs no host at all.


def test_keys_are_written_only_where_they_may_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as held:
        assert open_key_log(None, held) is None
        keys = open_key_log(tmp_path / "keys", held)
        assert keys is not None
        assert [record.message for record in caplog.records] == ["keys_are_written"]
        with pytest.raises(StartRefused, match="Is a directory"):
            open_key_log(tmp_path, held)
        write_keys(keys, pair().inbound, inbound=True)
        assert (tmp_path / "keys").read_text().startswith("# east inbound aes256-gcm16 spi 0x00002002 keymat 2222")


def test_a_full_disk_is_a_warning_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with KeyLog(tmp_path / "keys") as keys:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, keys.fileno())
        os.close(full)
        write_keys(keys, pair().outbound, inbound=False)
    (record,) = caplog.records
    assert record.message == "keys_not_written"
    assert record.fields["reason"] == "No space left on device"


def test_refusals_are_collected_and_others_are_not() -> None:
    refused = Refusals(["a"])
    refused.__enter__()
    with refused:
        raise StartRefused("b", "c")
    with refused:
        raise ControlUnavailable("d")
    with pytest.raises(StartRefused) as caught:
        refused.raise_all()
    assert caught.value.reasons == ("a", "b", "c", "d")
    with pytest.raises(ZeroDivisionError), refused:
        raise ZeroDivisionError
    Refusals().raise_all()


@pytest.mark.kdc
async def test_what_somebody_s_kinit_brings_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache with nothing in it, a ticket-granting ticket in it, another one; and then its owner destroys it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(daemon, "TGT_SECONDS", 0.05)
    principal, ccache = "kink/a.test@KINKVPN.TEST", f"FILE:{tmp_path}/ccache"
    with Realm(tmp_path / "realm", free_port()) as realm:
        monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
        realm.add_service(principal)
        realm.write_keytab(principal, tmp_path / "keytab")
        kinit = ["kinit", "-c", ccache, "-k", "-t", str(tmp_path / "keytab"), principal]
        acceptor = open_acceptor(HostSettings(principal, ccache=ccache, replay_cache="none:"))
        offered: list[bytes] = []

        def another() -> bool:
            with suppress(TgtDenied):
                offered.append(acceptor.offer_tgt(principal.encode()))
            return bool(offered) and offered[-1] not in offered[:-1]

        async with trio.open_nursery() as nursery:
            await nursery.start(
                daemon.offer_tgts, TicketSource(Credentials(principal, ccache=ccache)), acceptor, lambda: 5.0
            )
            assert not another()
            for _ in range(2):
                await trio.run_process(kinit, env=realm.environment)
                with trio.fail_after(DAEMON_SECONDS):
                    while not another():  # noqa: ASYNC110 - what a thread brings
                        await trio.sleep(0.01)
            await trio.run_process(["kdestroy", "-c", ccache], env=realm.environment)
            with trio.fail_after(DAEMON_SECONDS):
                while told(caplog, "tgt_unavailable") < 2:  # noqa: ASYNC110 - likewise
                    await trio.sleep(0.01)
            assert not another()  # what was offered goes on until it ends
            nursery.cancel_scope.cancel()
    assert (told(caplog, "tgt_offered"), told(caplog, "tgt_unavailable")) == (2, 2)  # each once, not each time
    ends = [record.fields["ends"] for record in caplog.records if record.getMessage() == "tgt_offered"]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", end) for end in ends), "a time that a person can read"


def told(caplog: pytest.LogCaptureFixture, event: str) -> int:
    return sum(record.getMessage() == event for record in caplog.records)


# What needs a host: each its own namespace, so that nothing outside is touched.


class Host:
    """A namespace with a realm in it, a configuration, and daemons on demand."""

    def __init__(self, directory: Path, namespace: Namespace, realm: Realm) -> None:
        self.directory, self.namespace, self.realm = directory, namespace, realm
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KRB5")},
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    @property
    def control(self) -> Path:
        return self.directory / "k.sock"

    def configure(self, *changes: tuple[str, str]) -> Path:
        text = CONFIGURATION
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = self.directory / "k.toml"
        path.write_text(text)
        return path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "kinkvpn", *arguments]

    def run(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.namespace.prefix, *before, *self.command(*arguments)],
            capture_output=True,
            text=True,
            timeout=DAEMON_SECONDS,
            check=False,
            env=self.environment,
        )

    def refusal(self, *changes: tuple[str, str], before: tuple[str, ...] = ()) -> list[str]:
        """What ``up`` says on stderr; that it exits with 2 and leaves the host as it was, is checked here."""
        path = self.configure(*changes)
        links = self.links()
        done = self.run("up", "-c", str(path), before=before)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert self.links() == links
        assert not self.control.exists()
        said = done.stderr.splitlines()
        assert all(line.startswith("kinkvpn: ") for line in said), done.stderr
        return [line.removeprefix("kinkvpn: ") for line in said]

    def links(self) -> str:
        return self.namespace.run(["ip", "-o", "address"]) + self.namespace.run(["ip", "route"])

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[str]]:
        """A daemon that answers; killed at the end if it still runs."""
        log = (self.directory / "log").open("w")
        process = subprocess.Popen(
            [*self.namespace.prefix, *self.command("up", "-c", str(self.configure()))],
            stderr=log,
            text=True,
            env=self.environment,
        )
        try:
            deadline = time.monotonic() + DAEMON_SECONDS
            while (status := self.status()) is None or status["pid"] != process.pid:
                assert process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < deadline
            yield process
        finally:
            process.kill()
            process.wait()
            log.close()

    def status(self) -> dict[str, Any] | None:
        done = self.run("status", "--json", "--socket", str(self.control))
        return None if done.returncode else json.loads(done.stdout)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("host")
    with Namespace("host") as namespace, Realm(directory / "realm", 88, prefix=namespace.prefix) as realm:
        namespace.ip("address add 192.0.2.1/24 dev lo")
        for name in ("a", "b"):
            realm.add_service(f"kink/{name}.test")
            realm.write_keytab(f"kink/{name}.test", directory / f"{name}.keytab")
        yield Host(directory, namespace, realm)


def marked(function: Callable[..., None]) -> Callable[..., None]:
    """Needs root and a KDC."""
    marks = pytest.mark.root, pytest.mark.kdc
    for mark in marks:
        function = mark(function)
    return function


@marked
def test_a_daemon_tells_of_itself_and_goes_down(host: Host) -> None:
    with host.daemon() as process:
        status = host.status()
        assert status is not None
        assert status["principal"] == "kink/a.test@KINKVPN.TEST"
        assert status["engine"] == ("portable" if why_missing() else "native")
        assert status["tun"] == {"name": "kink0", "mtu": 65400, "addresses": ["10.1.0.1/24"]}, (
            "that of lo, as far as UDP goes"
        )
        assert status["listeners"] == {
            "kink": ["0.0.0.0:910", "[::]:910"],
            "esp": ["0.0.0.0:4500", "[::]:4500"],
        }
        assert status["tickets"]["kept"] >= 1, "our own ticket-granting ticket"
        (peer,) = status["peers"]
        (policy,) = peer["policies"]
        assert (peer["name"], peer["state"], policy["name"], policy["packets_in"]) == ("b", "down", "b/1", 0)
        assert "10.2.0.0/24 dev kink0" in host.links()
        shown = host.run("status", "-c", str(host.directory / "k.toml"))
        assert "waiting for the first packet" in shown.stdout
        assert host.control.lstat().st_mode & 0o777 == 0o600

        again = host.run("up", "-c", str(host.directory / "k.toml"))
        assert again.returncode == 2
        assert again.stderr == f"kinkvpn: already running, pid {process.pid} (control socket {host.control})\n"

        down = host.run("down", "--socket", str(host.control))
        assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
        assert process.wait(DAEMON_SECONDS) == 0
    assert not host.control.exists()
    assert "kink0" not in host.links()


@marked
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_the_orderly_end(host: Host, number: signal.Signals) -> None:
    with host.daemon() as process:
        process.send_signal(number)
        assert process.wait(DAEMON_SECONDS) == 0
    assert not host.control.exists()
    assert "kink0" not in host.links()
    log = (host.directory / "log").read_text()
    assert [event for event in ("started", "signal", "stopping", "stopped") if f" {event}" in log] == [
        "started",
        "signal",
        "stopping",
        "stopped",
    ]


@marked
def test_a_crash_stops_nobody_from_starting_again(host: Host) -> None:
    with host.daemon() as process:
        process.kill()
        process.wait()
    assert host.control.exists()
    assert "kink0" not in host.links()
    with host.daemon():
        assert "kink0" in host.links()


@marked
def test_a_device_that_is_deleted_under_it_ends_it_with_one_line(host: Host) -> None:
    with host.daemon() as process:
        host.namespace.ip("link delete kink0")
        assert process.wait(DAEMON_SECONDS) == 1
    assert not host.control.exists()
    last = (host.directory / "log").read_text().splitlines()[-1]
    assert last == "kinkvpn: kink0 is gone: the interface was deleted while in use"


@marked
def test_check_needs_neither_root_nor_a_kdc(host: Host) -> None:
    done = host.run("check", "-c", str(host.configure()), before=("setpriv", "--bounding-set=-all"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{host.directory}/k.toml is good: 1 peer, 1 policy\n")


@marked
def test_what_is_wrong_with_the_keytab(host: Host) -> None:
    keytab = str(host.directory / "none")
    assert host.refusal(('"a.keytab"', '"none"')) == [f"keytab {keytab} does not exist"]
    assert host.refusal(('"a.keytab"', '"realm"')) == [
        f"keytab {host.directory}/realm cannot be read by uid 0: Is a directory"
    ]
    (line,) = host.refusal(('"a.keytab"', '"b.keytab"'))
    assert line.startswith(f"keytab {host.directory}/b.keytab has no key of kink/a.test@KINKVPN.TEST")


@marked
def test_a_keytab_of_refused_enctypes(host: Host) -> None:
    script = (
        "addent -password -p kink/a.test@KINKVPN.TEST -k 1 -e arcfour-hmac\nsecret\n"
        f"wkt {host.directory}/rc4.keytab\nquit\n"
    )
    subprocess.run(["ktutil"], input=script, text=True, check=True, env=host.realm.environment, capture_output=True)
    (line,) = host.refusal(('"a.keytab"', '"rc4.keytab"'))
    assert "arcfour-hmac" in line


@marked
def test_a_kdc_that_does_not_know_us_and_a_key_that_it_does_not_have(host: Host) -> None:
    for principal in ("kink/gone.test", "kink/changed.test"):
        host.realm.add_service(principal)
        host.realm.write_keytab(principal, host.directory / "gone.keytab")
    host.realm.kadmin("delprinc", "-force", "kink/gone.test")
    host.realm.kadmin("cpw", "-randkey", "kink/changed.test")
    gone = ('"a.keytab"', '"gone.keytab"')
    (line,) = host.refusal(gone, ("kink/a.test", "kink/gone.test"))
    assert "kink/gone.test@KINKVPN.TEST" in line
    assert "(127.0.0.1:88)" in line
    (line,) = host.refusal(gone, ("kink/a.test", "kink/changed.test"))
    assert "kink/changed.test@KINKVPN.TEST" in line


@marked
def test_a_kdc_that_is_not_there_and_one_that_is_silent(host: Host) -> None:
    text = host.realm.krb5_conf.read_text()
    silent = host.directory / "silent.conf"
    silent.write_text(text.replace("127.0.0.1:88", "127.0.0.1:89"))
    (line,) = host.refusal(("realm/krb5.conf", "silent.conf"))
    assert "no answer from the KDC of KINKVPN.TEST (127.0.0.1:89) in " in line
    keep = "import socket as s; u = s.socket(type=s.SOCK_DGRAM); u.bind(('127.0.0.1', 89)); t = s.socket(); "
    keep += "t.bind(('127.0.0.1', 89)); t.listen(); print(flush=True); input()"
    with held(host, keep):
        (line,) = host.refusal(("realm/krb5.conf", "silent.conf"))
        # libkrb5 itself would wait for 27 s.
        assert re.search(r"no answer from the KDC of KINKVPN.TEST \(127.0.0.1:89\) in \d\.\d s", line)


@marked
def test_a_krb5_conf_that_is_not_there_and_one_that_does_not_parse(host: Host) -> None:
    (line,) = host.refusal(("realm/krb5.conf", "none.conf"))
    assert f"{host.directory}/none.conf" in line
    (host.directory / "bad.conf").write_text("[libdefaults\n")
    (line,) = host.refusal(("realm/krb5.conf", "bad.conf"))
    assert f"{host.directory}/bad.conf" in line


@contextmanager
def held(host: Host, script: str) -> Iterator[int]:
    """A process in the host's namespace that says when it has what it wants and keeps it; its pid."""
    process = subprocess.Popen(
        [*host.namespace.prefix, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=host.environment,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def shortened(script: str) -> str:
    """What a refusal shows of a holder's command: 60 characters, and the path of this Python may fill them alone."""
    return f"{sys.executable} -c {script}"[:57] + "..."


@marked
@pytest.mark.parametrize("port", [910, 4500])
def test_a_port_that_somebody_has(host: Host, port: int) -> None:
    take = (
        f"import socket as s; u = s.socket(type=s.SOCK_DGRAM); u.bind(('0.0.0.0', {port})); print(flush=True); input()"
    )
    with held(host, take) as pid:
        (line,) = host.refusal()
    assert line.startswith(f"port 0.0.0.0:{port}/udp is taken by pid {pid} ({shortened(take)})")


@marked
def test_a_device_that_somebody_has(host: Host) -> None:
    take = "import pytun; t = pytun.TunTapDevice(name='kink0', flags=pytun.IFF_TUN); print(flush=True); input()"
    with held(host, take) as pid:
        (line,) = host.refusal()
    assert line.startswith(f"device kink0 is in use by pid {pid} ({shortened(take)})")


@marked
def test_an_address_that_is_not_ours(host: Host) -> None:
    assert host.refusal(("[tun]", '[kink]\nlisten = "203.0.113.9"\n[tun]')) == [
        "port 203.0.113.9:910/udp: 203.0.113.9 is no address of this host",
        "port 203.0.113.9:4500/udp: 203.0.113.9 is no address of this host",
    ]


@marked
def test_names_that_do_not_resolve(host: Host) -> None:
    (line,) = host.refusal(("192.0.2.2", "nowhere.invalid"))
    assert line.startswith("peer b: nowhere.invalid does not resolve: ")


@marked
def test_a_way_to_the_peer_through_its_own_tunnel(host: Host) -> None:
    """The subnet of its own address is in the main table, whatever the rules say of the peer's."""
    (line,) = host.refusal(("10.1.0.1/24", "192.0.2.3/31"))
    assert line.startswith("the peer at 192.0.2.2 would be reached through kink0 itself")


@marked
def test_missing_capabilities_are_all_named(host: Host) -> None:
    lines = host.refusal(before=("setpriv", "--bounding-set=-net_admin,-net_bind_service"))
    assert [line.split(" (CapEff ")[0] for line in lines] == [
        "port 0.0.0.0:910/udp: uid 0 lacks CAP_NET_BIND_SERVICE",
        "device kink0: uid 0 lacks CAP_NET_ADMIN",
    ]


@marked
def test_raw_esp_needs_its_capability(host: Host) -> None:
    (line,) = host.refusal(
        ("remote = ", 'encapsulation = "raw"\nremote = '), before=("setpriv", "--bounding-set=-net_raw")
    )
    assert line.startswith('encapsulation = "raw": uid 0 lacks CAP_NET_RAW (CapEff ')


@marked
def test_no_tun_device_node(host: Host) -> None:
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
    (line,) = host.refusal(("[tun]", '[tun]\ndevice = "tun"'), before=hide)
    assert line.startswith("no /dev/net/tun: ")


@marked
def test_a_dead_peer_delays_the_end_a_little_and_a_second_signal_not_at_all(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.start_realm()
        lab.start_hosts()
        lab.start_daemons()
        a, b = lab.hosts

        def establish() -> int:
            ping = ["ping", "-n", "-c", "1", "-w", "10", b.site.inner_address(4)]
            assert a.namespace.run(ping, timeout=15)
            status = a.status()
            assert status is not None
            assert "established" in [policy["state"] for policy in status["peers"][0]["policies"]]
            return int(status["pid"])

        pid = establish()
        b.kill()
        process = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        assert not ended(process, 0.3)  # it waits for an answer to its DELETE
        os.kill(pid, signal.SIGTERM)
        assert ended(process, DAEMON_SECONDS)
        os.close(process)
        with pytest.raises(Exception, match="exit code -15"):
            a.check_alive()
        a.kill()

        lab.start_daemons()  # after a crash on one side and a hard end on the other
        establish()
        b.kill()
        assert a.stop() > 0.5


def ended(process: int, seconds: float) -> bool:
    return bool(select.select([process], [], [], seconds)[0])
