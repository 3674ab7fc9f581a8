"""What may leave in the clear, as it may be written."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from support.configuration import SMALL, SOURCE, errors

from kinkvpn import config
from kinkvpn.config import Block, Known


def test_one_line_ahead_of_the_first_table_is_enough() -> None:
    clear = config.parse(f'clear.bypass = ["lan", "kdc", "192.0.2.0/24"]\n{SMALL}', SOURCE).clear
    assert clear.bypass == (Known.LAN, Known.KDC, ip_network("192.0.2.0/24"))
    assert clear.block is Block.NOTHING


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('bypass = "wan"', 'clear.bypass = "wan": expected "lan", "kdc", "dns", or a subnet'),
        ("bypass = [7]", 'clear.bypass[1] = 7: expected "lan", "kdc", "dns", or a subnet'),
        ('bypass = ["lan", "lan"]', 'clear.bypass[2] = "lan": expected each value once'),
        ('bypass = "10.1.0.1/24"', 'expected "lan", "kdc", "dns", or a subnet without host bits: 10.1.0.0/24'),
        ('block = "all"', 'clear.block = "all": expected one of nothing, protected, everything'),
        ('exempt = "kdc"', "clear.exempt"),
    ],
)
def test_what_is_wrong_is_said(line: str, wrong: str) -> None:
    (said,) = errors(f"{SMALL}\n[clear]\n{line}\n")
    assert wrong in said


def test_what_is_let_out_by_its_port_has_one_that_is_known() -> None:
    text = f'clear.block = "protected"\n{SMALL}\n[esp]\nport = "any"\n'
    (said,) = errors(text)
    assert 'esp.port = "any": expected a number, for clear.block lets out what leaves from it' in said
    config.parse(text.replace('"protected"', '"nothing"'), SOURCE)
