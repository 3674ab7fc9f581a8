"""``kinkvpn run`` of a user without any privilege, against a daemon: the command is its own, and has no other way."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import SOCK_DGRAM, socket
from typing import TYPE_CHECKING

import dns.message
import pytest
from support.behind import servers
from support.lab import status, within
from support.traveller import WAIT_SECONDS, Traveller
from support.unprivileged import ROOT, USER

from kinkvpn.api.client import Client
from kinkvpn.demo.capture import Capture, read_pcap
from kinkvpn.demo.lab import UPLINK, WIRE, Lab, inbound_spis, kinkvpn, policies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

THERE = "10.2.0.1"


@pytest.fixture
def traveller(lab: Lab, directory: Path) -> Traveller:
    return Traveller(lab, directory)


def tunnels(traveller: Traveller) -> list[int]:
    """The user's processes that carry packets, or have not become a command yet."""
    found, named = [], str(traveller.configuration).encode()
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and each.stat().st_uid == USER and named in (each / "cmdline").read_bytes():
                found.append(int(each.name))
        except OSError:
            continue
    return found


def wait_until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not within a generous time"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left(traveller: Traveller) -> Iterator[None]:
    yield
    wait_until(lambda: not tunnels(traveller))


@pytest.mark.parametrize("engine", ["auto", "portable"])
@pytest.mark.parametrize("device", ["tun", "veth"])
def test_the_tunnel_is_the_only_way_and_carries_nothing_else(
    traveller: Traveller, lab: Lab, directory: Path, device: str, engine: str
) -> None:
    """While a command asks for what is inside, for the gateway itself and for the KDC, there are KINK and ESP alone."""
    traveller.environment["ESP_ENGINE"] = engine
    script = f"""
ping -c 3 -i 0.2 {THERE} && ping -6 -c 3 -i 0.2 fd00:2::1 || exit 1
for outside in {lab.hosts[1].site.wire} 198.51.100.88; do ping -c 1 -W 1 $outside && exit 2; done
cat /proc/self/status | grep Cap; id -u; cat /proc/net/dev; echo $KINKVPN_SOCKET"""
    with Capture(traveller.host.namespace, WIRE, directory / "wire.pcap") as capture:
        with traveller.running("sh", "-c", f"{script}; echo done; read go", options=["--device", device]) as process:
            assert process.stdout is not None
            said = ""
            while not said.endswith("done\n") and (line := process.stdout.readline()):
                said += line
            pairs = policies(status(traveller.gateway))
            with Client(Path(said.splitlines()[-2])) as daemon:
                assert engine in {"auto", daemon.status()["engine"]}
            _, errors = process.communicate("go\n", WAIT_SECONDS)
        wait_until(lambda: not inbound_spis(status(traveller.gateway)))
        assert capture.stop() == 0
    assert process.returncode == 0, errors
    assert "kinkvpn" not in errors
    assert f"\n{USER}\n" in said
    assert "CapEff:\t0000000000000000" in said
    assert ("kink0~" in said) == (device == "veth")
    here, there = lab.hosts
    ways = {there.site.wire: "spi_in", here.site.wire: "spi_out"}
    spis = {address: frozenset(int(pair[way], 16) for pair in pairs) for address, way in ways.items()}
    traffic = capture.classify(spis)
    assert not traffic.leaks
    assert traffic.kink["CREATE"] >= 1
    assert traffic.kink["DELETE"] >= 1


def test_exit_code_and_signal_are_the_command_s(traveller: Traveller) -> None:
    assert traveller.run("sh", "-c", "exit 7").returncode == 7
    assert traveller.run("sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL
    absent = traveller.run("no-such-command")
    assert (absent.returncode, absent.stderr) == (127, "kinkvpn: no-such-command: No such file or directory\n")


def test_signals_go_to_the_command_itself(traveller: Traveller) -> None:
    with traveller.running(
        "sh", "-c", 'trap "echo told; exit 3" USR1; echo ready; while :; do sleep 0.1; done'
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "told\n"
        assert process.wait(30) == 3


def test_the_terminal_is_the_command_s(traveller: Traveller) -> None:
    """Ctrl-C reaches it and not the tunnel; it is in the foreground."""
    script = 'trap "echo interrupted" INT; [ -t 0 ] && echo ready; sleep 60; ping -c 1 10.2.0.1 && echo alive'
    command = traveller.command("sh", "-c", script)
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell traps no signal that it was started to ignore
        os.execvpe(command[0], command, traveller.environment)
    seen = ""

    def saw(text: str) -> bool:
        nonlocal seen
        with suppress(OSError):  # EIO: the last one has closed it
            seen += os.read(terminal, 4096).decode()
        return text in seen

    wait_until(lambda: saw("ready"), WAIT_SECONDS)
    os.write(terminal, b"\x03")
    wait_until(lambda: saw("alive"), WAIT_SECONDS)
    assert "interrupted" in seen
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Typist:
    """Somebody at a terminal, in which a shell of the user's runs."""

    def __init__(self, traveller: Traveller) -> None:
        command = [*traveller.prefix, "sh", "-i"]
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, traveller.environment | {"PS1": "", "ENV": ""})
        self._seen = ""

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def reads(self, text: str) -> None:
        """Up to ``text``, for which it waits."""
        deadline = time.monotonic() + 20
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, self._seen
            if select.select([self.terminal], [], [], left)[0]:
                self._seen += os.read(self.terminal, 4096).decode()
        self._seen = self._seen.partition(text)[2]

    def resizes(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def foreground(self) -> str:
        """The command that has the keyboard."""
        with suppress(OSError):  # between two of them
            return Path(f"/proc/{os.tcgetpgrp(self.terminal)}/cmdline").read_text().replace("\0", " ").strip()
        return ""

    def leaves(self) -> int:
        """What the shell has ended with; where it has not, it is hung up (SIGHUP), and its jobs with it."""
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def user(traveller: Traveller) -> Iterator[Typist]:
    """Who says `exit 6` at the end."""
    typing = Typist(traveller)
    yield typing
    assert typing.leaves() == 6


def test_job_control_and_the_size_of_the_terminal_are_as_if_there_were_no_tunnel(
    traveller: Traveller, user: Typist
) -> None:
    # Nothing is forked in there while it is stopped: dash(1) does that by vfork(2), and a child stopped before it has
    # executed anything would hold it.
    script = 'trap "stty size" WINCH; echo ready; while :; do read line; done'
    command = shlex.join([*kinkvpn(), "run", "-c", str(traveller.configuration), "--"])
    user.types("stty -echo; echo quiet\n")
    user.reads("\nquiet")
    user.types(f"{command} sh -c {shlex.quote(script)}\n")
    user.reads("ready")
    user.types("\x1a")  # Ctrl-Z
    wait_until(lambda: user.foreground() == "sh -i")
    user.types("jobs\n")  # what it says at once may be flushed along with what was typed before (termios(3), NOFLSH)
    user.reads("Stopped")
    user.types("fg\n")
    wait_until(lambda: user.foreground().endswith(script))
    user.resizes(41, 99)
    user.reads("41 99")
    user.types("\x03")  # Ctrl-C
    wait_until(lambda: user.foreground() == "sh -i")
    user.types("echo code $?\n")
    user.reads(f"code {128 + signal.SIGINT}")
    # A shell in there has jobs of its own.
    user.types(f"{command} sh -c 'echo begun; exec sh -i'\n")
    user.reads("begun")
    user.types("echo inside; sleep 600\n")
    user.reads("inside")
    wait_until(lambda: user.foreground() == "sleep 600")
    user.types("\x1a")
    wait_until(lambda: user.foreground() == "sh -i")
    user.types("jobs\n")
    user.reads("Stopped")
    user.types(f"ping -c 1 {THERE} >/dev/null && echo alive; fg\n")
    user.reads("alive")
    wait_until(lambda: user.foreground() == "sleep 600")
    user.types("\x03")
    wait_until(lambda: user.foreground() == "sh -i")
    user.types("exit 5\n")
    user.types("echo code $?; exit 6\n")
    user.reads("code 5")
    wait_until(lambda: not Path(f"/proc/{user.pid}/cmdline").read_bytes())  # until then closing would be a hangup


@pytest.mark.parametrize("device", ["tun", "veth"])
def test_a_tunnel_that_is_killed_takes_the_command_along(traveller: Traveller, device: str) -> None:
    with traveller.running("sh", "-c", "echo ready; exec sleep 600", options=["--device", device]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (tunnel,) = tunnels(traveller)
        os.kill(tunnel, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


def test_a_command_that_is_killed_ends_its_tunnel_in_order(traveller: Traveller) -> None:
    with traveller.running("sh", "-c", "echo ready; exec sleep 600") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert inbound_spis(status(traveller.gateway))
        process.kill()
        wait_until(lambda: not tunnels(traveller))
    wait_until(lambda: not inbound_spis(status(traveller.gateway)))


def test_several_at_once_and_each_is_asked_by_its_own_socket(traveller: Traveller) -> None:
    """A gateway has one pair for a peer and policy, so the last one has the traffic; each has sockets of its own."""
    with traveller.running("sh", "-c", "echo $KINKVPN_SOCKET; read go; exit 4") as first:
        assert first.stdout is not None
        control = first.stdout.readline().strip()
        second = traveller.run("ping", "-c", "1", THERE)
        assert second.returncode == 0, second.stderr
        asked = subprocess.run(
            [*traveller.prefix, "python3", "-c", "print()"], capture_output=True, check=False, text=True
        )
        assert asked.returncode == 0
        assert Path(control).stat().st_uid == USER
        assert Path(control).stat().st_mode & 0o777 == 0o600
        first.communicate("go\n")
        assert first.returncode == 4
    wait_until(lambda: not Path(control).exists())


@contextmanager
def queries(traveller: Traveller, directory: Path) -> Iterator[list[bytes]]:
    """Frames that ask for names of our domain and answer that, on either cable of the host; the list is filled at the
    end of the block.
    """
    seen: list[bytes] = []
    with ExitStack() as held:
        captures = [
            held.enter_context(Capture(traveller.host.namespace, cable, directory / f"{cable}.pcap", snaplen=1500))
            for cable in (WIRE, UPLINK)
        ]
        yield seen
        for capture in captures:
            assert capture.stop() == 0
            with capture.path.open("rb") as file:
                seen += [frame for _, frame in read_pcap(file) if b"\7kinkvpn\4test" in frame]


def test_names_are_asked_of_the_server_inside_and_of_nobody_in_the_clear(traveller: Traveller, directory: Path) -> None:
    """There is a way to the name server outside of the tunnel as well, so that a query in the clear would be seen."""
    with traveller.configuration.open("a") as file:
        file.write(f'\n[dns]\nservers = ["{THERE}"]\ndomains = ["kinkvpn.test"]\n')
    host, gateway = traveller.host, traveller.gateway
    asked = ("sh", "-c", "cat /etc/resolv.conf; getent ahostsv4 web")
    with ExitStack() as held:
        held.enter_context(servers(gateway, THERE))
        host.namespace.ip(f"route add {THERE} via {gateway.site.wire}")
        held.callback(host.namespace.ip, f"route delete {THERE} via {gateway.site.wire}")
        with queries(traveller, directory) as seen, within(host.namespace, lambda: socket(type=SOCK_DGRAM)) as outside:
            outside.settimeout(WAIT_SECONDS)
            outside.sendto(dns.message.make_query("web.kinkvpn.test", "A").to_wire(), (THERE, 53))
            assert THERE in str(dns.message.from_wire(outside.recv(1500)).answer[0])
        assert len(seen) == 2
        with queries(traveller, directory) as seen:
            done = traveller.run(*asked)
        assert not seen
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"nameserver {THERE}\nsearch kinkvpn.test\n{THERE} ")


def test_a_mount_that_is_refused_is_told_and_nothing_runs(traveller: Traveller) -> None:
    """It comes after the KDC's answer; what is refused before that is in tests/interop/test_obstacles.py."""
    with traveller.configuration.open("a") as file:
        file.write(f'\n[dns]\nservers = ["{THERE}"]\n')
    filtered = [*traveller.prefix, sys.executable, "-m", "support.refusing", "mount=EPERM", "--"]
    done = subprocess.run(
        [*filtered, *kinkvpn(), "run", "-c", str(traveller.configuration), "--", "echo", "ran"],
        env=traveller.environment | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"kinkvpn: uid {USER} may do nothing in a user namespace of its own (mounting resolv.conf): a seccomp filter "
        "forbids it: give the container `--security-opt seccomp=unconfined`, or `--device /dev/net/tun --cap-add "
        "NET_ADMIN` for `kinkvpn up`; `kinkvpn proxy --stack lwip` needs none\n"
    )


def test_a_gateway_that_is_not_there_is_told_and_nothing_runs(traveller: Traveller) -> None:
    text = traveller.configuration.read_text().replace("192.0.2.2", "192.0.2.3")
    traveller.configuration.write_text(text)
    done = traveller.run("echo", "ran", options=["--wait", "2"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "kinkvpn: waiting for b (192.0.2.3 port 4500)"
    assert done.stderr.splitlines()[-1] == "kinkvpn: no tunnel to b (192.0.2.3 port 4500): no answer within 2 s"
    assert traveller.run("echo", "ran", options=["--no-wait"]).stdout == "ran\n"


def test_a_gateway_that_refuses_is_told_at_once(traveller: Traveller) -> None:
    text = traveller.configuration.read_text().replace("aes256-gcm16", "aes128-cbc-sha256")
    traveller.configuration.write_text(text)
    done = traveller.run("echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("kinkvpn: no tunnel to b (192.0.2.2 port 4500): ")


def test_a_peer_without_address_cannot_be_called(traveller: Traveller) -> None:
    text = traveller.configuration.read_text().replace('address = "192.0.2.2"\n', "")
    traveller.configuration.write_text(text.replace('start = "boot"', 'start = "demand"'))
    done = traveller.run("echo", "ran")
    assert (done.returncode, done.stderr) == (2, "kinkvpn: peer b has no address: `kinkvpn run` calls its peers\n")
