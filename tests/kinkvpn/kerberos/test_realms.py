"""Both halves of an exchange in realms of every kind: what MIT's libkrb5 gets from their KDCs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.heimdal import HeimdalRealm
from support.kdc import Lab, free_port
from support.samba import SambaRealm

from kinkvpn.decode import asn1
from kinkvpn.decode.keyring import Keyring
from kinkvpn.demo.realm import Realm
from kinkvpn.kerberos.libkrb5 import Context, Krb5Error
from kinkvpn.kerberos.pac import AD_WIN2K_PAC, LOGON_INFO, groups_of
from kinkvpn.kerberos.session import Acceptor
from kinkvpn.kerberos.tickets import TicketSource, TicketUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinkvpn.demo.realm import KerberosRealm
    from kinkvpn.kerberos.session import SentRequest, VerifiedRequest

pytestmark = pytest.mark.kdc

GROUPS = 70
FRAME = 1500 - 20 - 8  # what a frame of Ethernet has room for behind IPv4 and UDP


@contextmanager
def living_in(realm: KerberosRealm, directory: Path) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
        yield Lab(realm, directory)


def exchange(lab: Lab, client: str, server: str) -> tuple[SentRequest, VerifiedRequest]:
    """A ticket, AP-REQ, AP-REP; both sides then have the same key."""
    ticket = lab.ticket(client, server)
    request = ticket.make_request()
    accepted = lab.acceptor(server).accept(request.ap_req)
    ap_rep = accepted.make_reply()
    request.verify_reply(ap_rep)
    assert (accepted.client, accepted.server) == (client, server)
    is_read_from_a_capture(lab, accepted, request.ap_req, ap_rep)
    accepted.key.verify(b"octets", ticket.key.checksum(b"octets"))
    assert ticket.key.decrypt(accepted.key.encrypt(b"octets"))[:6] == b"octets"
    assert ticket.key.prf(b"octets") == accepted.key.prf(b"octets")
    user_to_user(lab, client, server)
    return request, accepted


def is_read_from_a_capture(lab: Lab, accepted: VerifiedRequest, ap_req: bytes, ap_rep: bytes) -> None:
    """`kinkvpn decode` reads the DER of every KDC by itself, and says what libkrb5 said."""
    keyring = Keyring([lab.keytab(accepted.server)])
    opened = keyring.open_request(asn1.read_ap_req(ap_req))
    assert (opened.ticket.client, opened.ticket.server) == (accepted.client, accepted.server)
    assert (opened.ticket.end, opened.stamp) == (accepted.endtime, accepted.client_time)
    assert keyring.open_reply(opened.ticket.key, asn1.read_ap_rep(ap_rep)) == opened.stamp
    assert opened.ticket.key.checksum(b"octets") == accepted.key.checksum(b"octets")


def user_to_user(lab: Lab, client: str, server: str) -> None:
    """The same with the server's ticket-granting ticket in place of its keytab (RFC 4430 §3.1)."""
    realm = server.partition("@")[2]
    tgt = lab.ticket(server, f"krbtgt/{realm}@{realm}")
    assert tgt.server == f"krbtgt/{realm}@{realm}"  # its own realm's, and no other (RFC 4430 §4.2.4)
    acceptor = Acceptor([server], None, replay_cache="none:")
    acceptor.hold_tgt(tgt.as_tgt())
    ticket = lab.ticket(client, server, tgt=acceptor.offer_tgt(server.encode()))
    request = ticket.make_request()
    accepted = acceptor.accept(request.ap_req)
    request.verify_reply(accepted.make_reply())
    assert (accepted.client, accepted.server, accepted.user_to_user) == (client, server, True)
    assert ticket.key.prf(b"octets") == accepted.key.prf(b"octets")


@pytest.mark.parametrize("enctype", [17, 18, 19, 20])
def test_heimdal(tmp_path: Path, enctype: int) -> None:
    with HeimdalRealm(tmp_path / "realm", free_port(), enctypes=(enctype,)) as realm, living_in(realm, tmp_path) as lab:
        _, accepted = exchange(lab, f"kink/a.test@{realm.name}", f"kink/b.test@{realm.name}")
    assert accepted.key.enctype == enctype


@pytest.mark.parametrize("enctype", [17, 18, 19, 20])
def test_mit(tmp_path: Path, enctype: int) -> None:
    with Realm(tmp_path / "realm", free_port(), enctypes=(enctype,)) as realm, living_in(realm, tmp_path) as lab:
        _, accepted = exchange(lab, f"kink/a.test@{realm.name}", f"kink/b.test@{realm.name}")
    assert accepted.key.enctype == enctype


def test_active_directory_with_and_without_a_pac(tmp_path: Path) -> None:
    """A PAC makes the AP-REQ longer than a frame; the advice for paths that lose fragments makes it short again."""
    with SambaRealm(tmp_path / "realm", free_port(), groups=GROUPS) as realm, living_in(realm, tmp_path) as lab:
        client = f"kink/a.test@{realm.name}"
        with_pac, accepted = exchange(lab, client, f"kink/b.test@{realm.name}")
        assert accepted.key.enctype == 18
        realm.add_service("kink/c.test", pac=False)
        realm.write_keytab("kink/c.test", tmp_path / "kink_c.test.keytab")
        without_pac, plain = exchange(lab, client, f"kink/c.test@{realm.name}")
        memberships = {realm.sid("group-a-0"), realm.sid(f"group-a-{GROUPS - 1}"), realm.sid("Domain Computers")}
        assert memberships < accepted.groups()
        assert len(accepted.groups()) > GROUPS
        assert plain.groups() == frozenset()
        is_believed_under_its_own_key_alone(lab.keytab(f"kink/b.test@{realm.name}"), with_pac.ap_req)
    assert len(with_pac.ap_req) > FRAME
    assert len(without_pac.ap_req) < 600


def is_believed_under_its_own_key_alone(keytab: Path, ap_req: bytes) -> None:
    """The PAC is signed with the key that the ticket is sealed with (MS-PAC §2.8.1)."""
    context = Context({"default_rcache_name": "none:"})
    opened = context.keytab(f"FILE:{keytab}")
    ticket = context.read_request(context.auth_context(replay_checked=False), ap_req, opened)
    (octets,) = context.authorization_data(ticket, AD_WIN2K_PAC)
    right = context.keytab_key(opened, ticket)
    assert groups_of(context.pac_buffer(octets, LOGON_INFO, ticket, right))
    for changed, key in ((octets, ticket.enc_part2.session), (octets[:-1] + bytes([octets[-1] ^ 1]), right)):
        with pytest.raises(Krb5Error):
            context.pac_buffer(changed, LOGON_INFO, ticket, key)


async def test_a_silent_kdc_of_the_peer_s_realm_is_named(tmp_path: Path) -> None:
    west = Realm(tmp_path / "west", free_port(), name="WEST.TEST")
    east = Realm(tmp_path / "east", free_port(), name="EAST.EXAMPLE")
    with west, east, living_in(west, tmp_path / "west") as here:
        west.trust(east)
        source = TicketSource(here.credentials("kink/a.test@WEST.TEST"))
        with pytest.raises(TicketUnavailable, match=r"the KDC of EAST.EXAMPLE .* does not know that principal"):
            await source.get("kink/none.test@EAST.EXAMPLE", deadline=20)
        east.stop()
        with pytest.raises(TicketUnavailable) as caught:
            await source.get("kink/b.test@EAST.EXAMPLE", deadline=20)
    assert f"no answer from the KDC of WEST.TEST (127.0.0.1:{west.port}) or the KDC of EAST" in str(caught.value)


def test_realms_that_trust_each_other(tmp_path: Path) -> None:
    west = Realm(tmp_path / "west", free_port(), name="WEST.TEST")
    east = Realm(tmp_path / "east", free_port(), name="EAST.EXAMPLE")
    with west, east, living_in(west, tmp_path / "west") as here, living_in(east, tmp_path / "east") as there:
        west.trust(east)
        client, server = "kink/a.test@WEST.TEST", "kink/b.test@EAST.EXAMPLE"
        there.keytab(server)
        (tmp_path / "west/kink_b.test.keytab").write_bytes(there.keytab(server).read_bytes())
        exchange(here, client, server)
