"""A gateway that lets in a group of Active Directory, by the PACs that Samba's KDC puts into tickets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.doctor import answered
from support.lab import command, configure, events, start
from support.people import PASSWORD, guests, laptop, open_gateway
from support.samba import SambaRealm

from kinkvpn.demo.lab import KDC_ADDRESS, KDC_PORT, Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def domain(directory: Path, prefix: Sequence[str]) -> list[SambaRealm]:
    return [SambaRealm(directory / "realm", KDC_PORT, addresses=(KDC_ADDRESS,), prefix=prefix)]


@pytest.fixture
def directory_lab(directory: Path) -> Iterator[Lab]:
    """Two hosts in a domain, no daemons."""
    with Lab(directory, realms=domain) as lab:
        lab.start_realm()
        lab.start_hosts()
        configure(lab)
        for host in lab.hosts:
            host.log.write_text("")
        try:
            yield lab
        finally:
            for host in lab.hosts:
                host.kill()
                print(f"--- host {host.name}\n{host.log.read_text()}")


def test_a_member_of_the_group_is_let_in_and_somebody_else_is_not(directory_lab: Lab) -> None:
    lab, gateway = directory_lab, directory_lab.hosts[1]
    realm: Any = lab.realm
    realm.add_person("alice", PASSWORD, "vpn-users")
    realm.add_person("bob", PASSWORD)
    more = f'[people.groups]\nvpn = "{realm.sid("vpn-users")}"\n'
    open_gateway(gateway, 'groups = "vpn"', more)
    start(lab, gateway)
    looked = command(gateway, "doctor", "--json")
    found = answered(looked.returncode, looked.stdout)
    assert found["keytab-kvno-fits"]["severity"] == found["people"]["severity"] == "ok"
    assert "people-no-pac" not in found
    with laptop(lab) as alice:
        alice.kinit()
        alice.up()
        alice.wait_up()
        assert alice.address().startswith("10.8.0.")
        assert guests(gateway) == [alice.principal]
        alice.stop()
    with laptop(lab, "bob") as bob:
        bob.kinit()
        assert "no rule of its lets us in" in bob.refused()
    assert any(f"{bob.principal}, and no rule lets it in" in line for line in events(gateway, "command_refused"))
