"""What ``--print`` prints."""

from __future__ import annotations

import json

from support.manual import pair

from kinkvpn.keylog import esp_sa_lines
from kinkvpn.manual import xfrm
from kinkvpn.manual.printing import Form, lines


def test_each_pair_has_policies_of_its_own_in_linux() -> None:
    pairs = [pair(), pair("aes128-cbc-sha1")]
    assert list(lines(pairs, Form.XFRM)) == [*xfrm.commands(pairs[0], 1), *xfrm.commands(pairs[1], 2)]


def test_wireshark_has_both_ways_with_their_addresses() -> None:
    here = pair()
    one, other = "192.0.2.1", "192.0.2.2"
    assert list(lines([here], Form.WIRESHARK)) == [
        *esp_sa_lines(here.outbound, "outbound", one, other),
        *esp_sa_lines(here.inbound, "inbound", other, one),
    ]


def test_json_has_everything() -> None:
    (text,) = lines([pair("aes128-cbc-sha256")], Form.JSON)
    (found,) = json.loads(text)["pairs"]
    assert (found["policy"], found["suite"], found["mode"], found["encapsulation"]) == (
        *("east", "aes128-cbc-sha256"),
        *("tunnel", "udp"),
    )
    assert found["headers"]["df"] == "auto"
    assert found["headers"]["dscp"] == list(range(64))
    assert found["source"] == {"address": "192.0.2.1", "port": 4500}
    assert found["outbound"]["spi"] == "0x00001001"
    assert found["outbound"]["keymat"] == found["outbound"]["encryption_key"] + found["outbound"]["integrity_key"]
    assert (len(found["inbound"]["encryption_key"]), found["inbound"]["salt"]) == (32, "")
