"""This host in Kerberos."""

from __future__ import annotations

import pytest
from support.configuration import SOURCE, edited

from kinkvpn import config


@pytest.mark.parametrize(
    ("stores", "keytab"),
    [
        ('keytab = "a"', "a"),
        ('keytab = "a"\nclient_keytab = "c"', "c"),
        ('keytab = "a"\nccache = "KCM:"', None),
        ('client_keytab = "c"\nccache = "KCM:"', "c"),
    ],
)
def test_which_keytab_credentials_are_got_with(stores: str, keytab: str | None) -> None:
    host = config.parse(edited('keytab = "/etc/krb5.keytab"', stores), SOURCE).host
    assert host.initiator_keytab == (SOURCE.parent / keytab if keytab else None)
