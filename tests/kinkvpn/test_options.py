"""What peers and policies have in common: inherited key by key. Texts and errors are in kinkvpn/config."""

from __future__ import annotations

from kinkvpn.document import Document, Table
from kinkvpn.options import Options, Shape, read_options


def table(text: str) -> Table:
    document = Document.parse(text, "c.toml")
    return Table(document, (), document.root)


def test_a_table_that_says_nothing_inherits_everything() -> None:
    before = read_options(table('lifetime = 60\ntfc_octets = 900\ndf = "set"\nsuites = "aes128-gcm16"'), Options())
    assert before != Options()
    assert read_options(table(""), before) == before


def test_each_key_stands_for_itself() -> None:
    before = read_options(table("tfc_octets = 900\ndscp = 46\ndscp_inward = true"), Options())
    after = read_options(table("tfc_dummy_after = 1\ndscp = 'copy'"), before)
    assert after.shape == Shape(tfc_octets=900, tfc_dummy_after=1.0)
    assert after.headers.dscp == Options().headers.dscp
    assert after.headers.dscp_inward
