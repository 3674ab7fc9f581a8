"""What manual SAs have carried, as an object and as text."""

from __future__ import annotations

import io
import json
import re

from support.tunnel import ipv4, open_tunnel

from esp.dataplane import LinkStatistics
from kinkvpn.manual import account
from kinkvpn.terminal import show_each


def found() -> dict[str, object]:
    tunnel = open_tunnel()
    sealed = tunnel.seal(ipv4(b"x" * 100), ipv4(b"y" * 100))
    tunnel.open(*sealed, sealed[0])
    return account.of(tunnel.right.statistics(), LinkStatistics(esp_received=3))


def test_the_object_is_json_and_has_every_sa() -> None:
    seen = json.loads(json.dumps(found()))
    assert (seen["packets_in"], seen["drops"], seen["link"]["esp_received"]) == (2, {"replayed": 1}, 3)
    four = next(sa for sa in seen["sas"] if sa["policy"] == "four")
    assert (four["direction"], four["spi"], four["packets"], four["sequence"]) == ("inbound", "0x00001000", 2, 2)
    assert four["drops"] == {"replayed": 1}


def test_the_text_has_a_row_for_each_sa_and_the_sums() -> None:
    out = io.StringIO()
    show_each(account.tables(found()), out)
    lines = out.getvalue().splitlines()
    assert re.fullmatch(r"policy +direction +spi +packets +octets +sequence +engine +dropped", lines[0])
    assert re.fullmatch(r"four +inbound +0x00001000 +2 +\d+ B +2 +portable +replayed 1", lines[1])
    assert re.fullmatch(r"six +inbound +0x00002000 +0 +0 B +0 +portable +nothing", lines[2])
    assert lines[-2] == "traffic  in 2 (240 B), out 0 (0 B)"
    assert lines[-1] == "dropped  replayed 1"
