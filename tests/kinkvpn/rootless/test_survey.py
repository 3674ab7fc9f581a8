"""Which ways there are is found by trying them."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest
from support.unprivileged import USER, as_user, become, mount_alone

from kinkvpn.rootless.namespace import CLONE_NEWUSER, mount, unshare
from kinkvpn.rootless.survey import survey

pytestmark = pytest.mark.root

NAMES = ["user, network and mount namespaces", "a TUN device in them", "a veth pair in them"]


def found() -> object:
    return [astuple(way) for way in survey()]


def test_all_of_them_where_nothing_is_refused() -> None:
    assert as_user(found) == [[name, ""] for name in NAMES]


def test_a_device_that_is_not_there_is_one_of_them() -> None:
    def deed() -> object:
        mount_alone()
        mount("none", "/dev/net", "tmpfs")
        become(USER)
        return found()

    (_, namespaces), (_, tun), (_, veth) = as_user(deed, user=0)
    assert namespaces == veth == ""
    assert tun.startswith("no /dev/net/tun: run `modprobe tun`, give the container `--device /dev/net/tun`")


def test_without_namespaces_there_is_none() -> None:
    def deed() -> object:
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{USER} {USER} 1")
        Path("/proc/self/gid_map").write_text(f"{USER} {USER} 1")
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        return found()

    ways = as_user(deed)
    assert [name for name, _ in ways] == NAMES
    assert {line for _, line in ways} == {
        f"no user namespace for uid {USER}: user.max_user_namespaces is 0: "
        "`sysctl -w user.max_user_namespaces=10000` as root; `kinkvpn proxy` needs none"
    }
