"""What an operator decides about headers, and what is taken where nothing was decided."""

from __future__ import annotations

from esp.headers import DEFAULT_RULES, DSCP_COPIED, DontFragment, Ecn, HeaderRules


def test_without_a_word_headers_are_as_rfc_4301_has_them() -> None:
    assert HeaderRules(Ecn.NORMAL, DSCP_COPIED, dscp_inward=False, df=DontFragment.AUTO) == DEFAULT_RULES
    assert list(DSCP_COPIED) == list(range(64))
