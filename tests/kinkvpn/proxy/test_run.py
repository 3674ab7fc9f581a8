"""What ``kinkvpn proxy`` says where it can have no stack; the rest of it is in tests/interop/test_proxy.py."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from support.unprivileged import as_user

from kinkvpn.people import Wishes
from kinkvpn.proxy import lwip
from kinkvpn.proxy.run import DESCRIPTORS, StackChoice, Wanted, have_descriptors, run
from kinkvpn.rootless.namespace import CLONE_NEWUSER, unshare
from kinkvpn.service.obstacles import StartRefused

ABSENT = "not there"


def refused(choice: StackChoice) -> str:
    """By a user in whose namespace there may be no other, with an installation without lwIP."""

    def deed() -> object:
        unshare(CLONE_NEWUSER)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        try:
            run(Wanted(None, "gw.example.com", Wishes(), (), None, (), (), (), choice))
        except StartRefused as found:
            return str(found)

    return str(as_user(deed))


def test_there_are_descriptors_for_all_that_there_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        have_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(DESCRIPTORS, before[1] % (1 << 64))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.root
def test_where_there_is_no_stack_each_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lwip, "why_missing", lambda: ABSENT)
    kernel = refused(StackChoice.KERNEL)
    assert "namespace" in kernel
    assert refused(StackChoice.LWIP) == f"lwIP is {ABSENT}"
    assert refused(StackChoice.AUTO) == f"{kernel}; and lwIP, which would do without, is {ABSENT}"
