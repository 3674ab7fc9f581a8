"""The units: what systemd says of them, and a daemon that lives on what they leave it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import lab as laboratory

from kinkvpn.demo.lab import START_SECONDS, Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host

UNITS = Path(__file__).parent.parent.parent / "contrib" / "systemd"
SERVICES = ("kinkvpn.service", "kinkvpn@.service")
BLOCK = "kinkvpn-block.service"
# Numbers that no account of a Debian system has.
USER = 64910


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as a package would leave them, with a program to start; nobody has written the manual page yet."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("=kinkvpn ", "=/bin/true ")
        (tmp_path / unit.name).write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    return tmp_path


@pytest.mark.programs
@pytest.mark.parametrize("unit", [*SERVICES, BLOCK])
def test_what_it_could_do_if_it_were_taken_over_is_little(installed: Path, unit: str) -> None:
    """systemd-analyze(1): --threshold is the exposure level times ten."""
    name = unit.replace("@", "@branch")
    (installed / unit).rename(installed / name)
    judged = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", installed / name)
    assert judged.returncode == 0, judged.stdout
    worse = (installed / name).read_text().replace("ProtectSystem=strict\n", "").replace("NoNewPrivileges=yes\n", "")
    (installed / name).write_text(worse.replace("SystemCallFilter", "#"))
    again = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", installed / name)
    assert again.returncode == 1


@pytest.mark.programs
def test_systemd_understands_every_line(installed: Path) -> None:
    for unit in sorted(installed.glob("*.service")) + sorted(installed.glob("*.socket")):
        instance = unit.rename(unit.with_name(unit.name.replace("@", "@branch")))
        judged = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", instance)
        assert (judged.returncode, judged.stderr) == (0, ""), unit.name


def test_the_template_is_the_same_but_for_its_name() -> None:
    one, many = ((UNITS / unit).read_text() for unit in SERVICES)
    many = many.replace("/kinkvpn/%i.toml", "/kinkvpn/kinkvpn.toml")
    for mark in ("/%i", "-%i", ", %i"):
        many = many.replace(mark, "")
    assert many == one


@pytest.mark.root
def test_the_account_and_its_files_are_made(tmp_path: Path) -> None:
    for part, name in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")):
        (tmp_path / "usr/lib" / name).mkdir(parents=True)
        shutil.copy(UNITS / f"kinkvpn.{part}", tmp_path / "usr/lib" / name / "kinkvpn.conf")
    (tmp_path / "etc/kinkvpn").mkdir(parents=True)
    (tmp_path / "etc/kinkvpn/keytab").write_text("")
    made = run("systemd-sysusers", f"--root={tmp_path}")
    assert made.returncode == 0, made.stderr
    passwd = (tmp_path / "etc/passwd").read_text()
    account = re.search(r"^kinkvpn:x:(\d+):(\d+):kinkvpn daemon:/var/lib/kinkvpn:/usr/sbin/nologin$", passwd, re.M)
    assert account is not None
    made = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "kinkvpn.conf")
    assert made.returncode == 0, made.stderr
    for path, mode in (("etc/kinkvpn", 0o40750), ("etc/kinkvpn/keytab", 0o100640)):
        found = (tmp_path / path).stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (mode, 0, int(account[2])), path


# What the unit gives a daemon, given to one.


@contextmanager
def notified(directory: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket that everybody may write to."""
    path = directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        path.chmod(0o777)
        listening.settimeout(30)
        yield str(path), listening


# The program where everybody may read it, wherever the clone and its Python are; and that Python in place of ours.
INSTALL = """
cd "$1" && mount --bind "$2" source && mount --bind "$3" site && mount --bind "$4" python && shift 4 && exec "$@"
"""
START = 'interpreter=$1 && shift 2 && exec "$interpreter" "$@"'


def installed_in(directory: Path) -> list[str]:
    """A command line's beginning: what this installation is made of, mounted below ``directory``."""
    for name in ("source", "site", "python"):
        (directory / name).mkdir()
    found = (str(UNITS.parent.parent), sysconfig.get_path("purelib"), sys.base_prefix)
    return ["unshare", "--mount", "sh", "-c", INSTALL, "sh", str(directory), *found]


def confined(unit: str, notify: str, directory: Path) -> list[str]:
    """A command line's beginning: the account, capabilities and environment of the unit, by setpriv(1)."""
    (ambient,), (bounding,) = values(unit, "AmbientCapabilities"), values(unit, "CapabilityBoundingSet")
    assert ambient == bounding
    capabilities = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in ambient.split())
    return [
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
        *(f"--{name}=-all,{capabilities}" for name in ("bounding-set", "inh-caps", "ambient-caps")),
        *("env", f"NOTIFY_SOCKET={notify}", "WATCHDOG_USEC=3000000", f"KRB5RCACHEDIR={directory}/a"),
        *(
            f"PYTHONPATH={directory}/source:{directory}/site",
            "PYTHONDONTWRITEBYTECODE=1",
            f"LD_LIBRARY_PATH={directory}/python/lib",
        ),
        *("sh", "-c", START, "sh", f"{directory}/python/bin/{Path(sys.executable).resolve().name}"),
    ]


# What they write is beside the control socket, in a directory that is the account's here.
HOOKS = """
[hooks]
up = ["sh", "-c", "cd \\"${KINKVPN_SOCKET%/*}\\"; echo $KINKVPN_EVENT $KINKVPN_PEER >>hooks"]
peer_up = ["sh", "-c", "cd \\"${KINKVPN_SOCKET%/*}\\"; echo $KINKVPN_EVENT $KINKVPN_PEER >>hooks"]
peer_down = ["sh", "-c", "cd \\"${KINKVPN_SOCKET%/*}\\"; echo $KINKVPN_EVENT $KINKVPN_PEER >>hooks"]
down = ["sh", "-c", "cd \\"${KINKVPN_SOCKET%/*}\\"; ip link show $KINKVPN_DEVICE >ip && echo $KINKVPN_EVENT >>hooks"]
"""


def hand_over(host: Host) -> None:
    """The host's files to the account, as systemd would its directories."""
    directory = host.configuration.parent
    for path in (directory, *directory.iterdir()):
        os.chown(path, USER, USER)


@pytest.mark.root
def test_a_daemon_needs_nothing_but_what_the_unit_gives_it() -> None:
    """From its start to its end, with SAs, a rekey and traffic, as an account that may do nothing else."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        directory.chmod(0o755)  # the account has to get at what is its own there
        with notified(directory) as (notify, manager), Lab(directory) as lab:
            lab.start_realm()
            lab.start_hosts()
            lab.realm.krb5_conf.parent.chmod(0o755)
            a, b = laboratory.configure(lab)
            with a.configuration.open("a") as text:
                text.write(HOOKS)
            hand_over(a)
            a.start([*installed_in(directory), *confined("kinkvpn.service", notify, directory)])
            laboratory.wait(lab, a, lambda: laboratory.answers(a), "does not answer", START_SECONDS)
            assert said(manager, "READY=1")
            assert said(manager, "WATCHDOG=1")
            laboratory.start(lab, b)
            status = Path(f"/proc/{laboratory.status(a)['pid']}/status").read_text()
            rights = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.MULTILINE))
            assert rights["Uid"] == str(USER)
            # capabilities(7): NET_BIND_SERVICE 10, NET_ADMIN 12, NET_RAW 13.
            sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
            assert {int(rights[name], 16) for name in sets} == {1 << 10 | 1 << 12 | 1 << 13}
            for version in (4, 6):
                a.namespace.run(["ping", "-n", "-c", "1", "-W", "25", b.site.inner_address(version)])
            assert said(manager, "STATUS=1 of 1 peers have SAs")
            assert len(laboratory.ask(a, "rekey")["policies"]) == 2
            before = laboratory.network_state(b)
            a.stop()
            assert said(manager, "STOPPING=1")
            assert (directory / "a/hooks").read_text().split() == ["up", "peer-up", "b", "peer-down", "b", "down"]
            assert "kink0" not in laboratory.network_state(a)
            assert "kink0" in before


def said(manager: socket.socket, words: str) -> bool:
    """Whether the service manager is told this, sooner or later. Raises TimeoutError."""
    while True:
        if words in manager.recv(4096).decode():
            return True
