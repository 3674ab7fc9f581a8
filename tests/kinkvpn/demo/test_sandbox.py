"""Nothing outlives the sandbox, however it ends; and what the machine lacks is said in one line."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kinkvpn.demo import sandbox
from kinkvpn.demo.sandbox import check_machine, complete_path, run_inside

# PID 1 of the sandbox: a scratch mount, a child and a grandchild, and then whatever the test wants.
INNER = """
import os, subprocess, sys, time
from kinkvpn.demo.namespace import Namespace
from kinkvpn.demo.sandbox import leave_on_sigterm, mount_scratch
leave_on_sigterm()
assert os.getpid() == 1
scratch = mount_scratch()
(scratch / "file").write_text("x")
subprocess.Popen(["sh", "-c", "sleep 1000; true", {mark!r}])
namespace = Namespace("a")
print("ready", flush=True)
{end}
"""
OUTER = """
import sys
from kinkvpn.demo.sandbox import Interrupted, run_inside
try:
    sys.exit(run_inside([sys.executable, "-c", sys.argv[1]]) % 256)
except Interrupted as signalled:
    sys.exit(128 + signalled.number)
"""
SECONDS_TO_END = 5.0


def marked(mark: str) -> list[str]:
    """Processes of this machine with ``mark`` on their command line, apart from the test's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            octets = path.read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if mark.encode() in octets and int(path.parent.name) != os.getpid():
            found.append(path.parent.name)
    return found


def start(mark: str, end: str) -> subprocess.Popen[str]:
    inner = INNER.format(mark=mark, end=end)
    outer = subprocess.Popen([sys.executable, "-c", OUTER, inner], stdout=subprocess.PIPE, text=True)
    assert outer.stdout is not None
    assert outer.stdout.readline() == "ready\n"
    return outer


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_of_it_before_the_command_returns(number: signal.Signals) -> None:
    mark = f"mark-{os.getpid()}-{number}"
    mounts = Path("/proc/self/mounts").read_text()
    with start(mark, "time.sleep(1000)") as outer:
        assert len(marked(mark)) >= 3  # outer, PID 1, sh
        outer.send_signal(number)
        assert outer.wait(SECONDS_TO_END) == 128 + number
    assert marked(mark) == []
    assert Path("/proc/self/mounts").read_text() == mounts


@pytest.mark.root
def test_a_signal_that_comes_before_pid_1_handles_any_is_not_lost() -> None:
    mark = f"mark-{os.getpid()}-early"
    early = "import time\nprint('ready', flush=True)\ntime.sleep(0.3)\n"
    command = [sys.executable, "-c", OUTER, early + INNER.format(mark=mark, end="time.sleep(1000)")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n"
        start = time.monotonic()
        outer.terminate()
        assert outer.wait(SECONDS_TO_END) == 128 + signal.SIGTERM
        assert time.monotonic() - start < sandbox.GRACE_SECONDS
    assert marked(mark) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(1)", 1),
        ("raise ValueError", 1),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("os._exit(7)", 7),
    ],
)
def test_the_end_of_pid_1_is_the_end_of_all_of_it(end: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    mark = f"mark-{os.getpid()}-{code}-{len(end)}"
    inner = INNER.format(mark=mark, end=end)
    assert run_inside([sys.executable, "-c", inner]) == code
    assert marked(mark) == []
    assert "ready" in capfd.readouterr().out


@pytest.mark.root
def test_when_the_command_itself_is_killed_the_kernel_ends_the_rest() -> None:
    mark = f"mark-{os.getpid()}-kill"
    with start(mark, "time.sleep(1000)") as outer:
        others = [os.pidfd_open(int(pid)) for pid in marked(mark) if int(pid) != outer.pid]
        assert len(others) >= 2
        outer.kill()
        deadline = time.monotonic() + SECONDS_TO_END
        for pidfd in others:
            assert select.select([pidfd], [], [], deadline - time.monotonic())[0]
            os.close(pidfd)


# A chroot as debootstrap leaves it: all of the machine inside, but its / is the mount point of nothing.
CHROOT = """
set -e
mkdir "$1"
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$1$path"
    elif [ -d "$path" ] && [ "$path" != /proc ]; then mkdir "$1$path"; mount --rbind "$path" "$1$path"
    fi
done
mkdir "$1/proc"
mount -t proc proc "$1/proc"
exec chroot "$1" sh -c "cd '$2' && $3"
"""


@pytest.mark.root
def test_works_in_a_plain_chroot(tmp_path: Path) -> None:
    inside = "import kinkvpn.demo.sandbox as s; print(s.mount_scratch())"
    script = f"{' '.join(sandbox.UNSHARE)} {sys.executable} -c '{inside}'; grep -c kinkvpn-demo /proc/mounts"
    arguments = [str(tmp_path / "root"), str(Path.cwd()), script]
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CHROOT, "sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([str(sandbox.SCRATCH), "0"], "")


@pytest.mark.root
def test_mounts_reach_nobody_even_where_mounts_are_shared() -> None:
    inside = f"{sys.executable} -c 'import kinkvpn.demo.sandbox as s; s.mount_scratch()'"
    script = f"{' '.join(sandbox.UNSHARE)} {inside}; grep -c kinkvpn-demo /proc/mounts"
    command = ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.root
def test_this_machine_can_run_it() -> None:
    complete_path()
    check_machine()


COMPLAIN = """
import kinkvpn.demo.sandbox as s
try:
    s.check_machine()
except s.CannotRun as error:
    print(error)
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("prefix", "path", "complaint"),
    [
        (["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"], "", "CAP_SYS_ADMIN"),
        (["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"], "", "/dev/net/tun (No"),
        ([], "/nonexistent", "apt-get install iproute2 iputils-ping"),
    ],
)
def test_what_is_missing_is_said_in_one_line(prefix: list[str], path: str, complaint: str) -> None:
    environment = os.environ | {"PATH": path} if path else os.environ
    command = [*prefix, sys.executable, "-c", COMPLAIN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert complaint in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.root
def test_who_is_not_root_is_told() -> None:
    # The interpreter may lie where others cannot read it: change the user when it has started.
    script = f"import os, kinkvpn.demo.sandbox\nos.setuid(12345)\n{COMPLAIN}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("needs root")


def test_an_incomplete_path_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/home/x/bin")
    complete_path()
    directories = os.environ["PATH"].split(":")
    assert directories[:2] == ["/usr/bin", "/home/x/bin"]
    assert "/usr/sbin" in directories
    assert len(directories) == len(set(directories))
