"""Veth pairs of ours: made quiet, and a predecessor's removed."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from pyroute2 import NetlinkError
from support.namespaces import namespace, run, within

from kinkvpn.service.veth import end_of, make_pair, remove_pair

pytestmark = pytest.mark.root


def test_a_pair_is_quiet_and_goes_as_one() -> None:
    with namespace() as net:
        pair = within(net, partial(make_pair, "kink0"))
        shown = run("ip", "-n", net, "-d", "link", "show", "kink0")
        assert "NOARP" in shown
        assert "addrgenmode none" in shown
        assert ":".join(f"{octet:02x}" for octet in pair.hardware) in shown
        assert (pair.host, pair.end) == ("kink0", "kink0~")
        within(net, partial(remove_pair, "kink0"))
        within(net, partial(remove_pair, "kink0"))
        assert "kink0" not in run("ip", "-n", net, "link", "show")


def test_a_name_of_the_longest_has_an_end_too() -> None:
    assert end_of("k" * 15) == "k" * 14 + "~"


def test_a_pair_of_somebody_who_has_gone_is_made_anew() -> None:
    with namespace() as net:
        script = "from kinkvpn.service.veth import make_pair; make_pair('kink0')"
        subprocess.run(["ip", "netns", "exec", net, sys.executable, "-c", script], check=True, timeout=60)
        assert within(net, partial(make_pair, "kink0")).host == "kink0"


def test_a_pair_of_others_is_in_the_way() -> None:
    with namespace() as net:
        run("ip", "-n", net, "link", "add", "kink0", "type", "veth", "peer", "name", "other")
        with pytest.raises(NetlinkError, match="File exists"):
            within(net, partial(make_pair, "kink0"))
