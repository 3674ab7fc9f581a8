"""What cannot be read again is not; real daemons and real changes are in tests/interop/test_reload.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from support.configuration import SMALL, SOURCE, edited

from kinkvpn import config
from kinkvpn.service.reload import Reload, ReloadRefused
from kinkvpn.service.roster import PeerRefused
from kinkvpn.service.tunnels import Altered

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from kinkvpn.config import PeopleSettings
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.service.tunnels import Tunnels

UNTOUCHED = cast("Tunnels", None)  # whatever asks it for something fails


async def test_a_daemon_without_a_file_has_none_to_read_again(caplog: pytest.LogCaptureFixture) -> None:
    reload = Reload(None, config.parse(SMALL, SOURCE), UNTOUCHED, cast("Any", None), cast("Any", None))
    with pytest.raises(ReloadRefused, match="there is no file to read again"):
        await reload()
    assert [record.message for record in caplog.records] == ["reload_refused"]


async def test_every_problem_is_said_and_nothing_is_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "k.toml"
    path.write_text(SMALL)
    running = config.load(path)
    reload = Reload(path, running, UNTOUCHED, cast("Any", None), cast("Any", None))
    path.write_text(edited("10.2.0.0/24", "10.2.0.1/24", SMALL.replace("[tun]", "[tunn]")))
    with pytest.raises(ReloadRefused) as refused:
        await reload()
    lines = str(refused.value).splitlines()
    assert lines == [record.fields["reason"] for record in caplog.records]
    assert lines[0] == f"{path}:5: tunn: unknown key; did you mean tun?"
    assert len(lines) == 2
    path.unlink()
    with pytest.raises(ReloadRefused, match="cannot read the configuration: No such file"):
        await reload()
    path.write_text(edited("[tun]", '[tun]\nname = "kink7"'))
    with pytest.raises(ReloadRefused, match=r"^tun\.name is another one now, which takes a restart"):
        await reload()
    assert reload.configuration is running


class Refusing:
    """Tunnels that cannot be otherwise."""

    async def change(self, *_wanted: object) -> None:
        raise PeerRefused("there cannot be such a peer")


async def test_who_was_seen_off_for_a_peer_that_does_not_come_about_may_come_again(tmp_path: Path) -> None:
    kept_out: list[set[str]] = []

    def people(_settings: PeopleSettings, peers: Collection[str]) -> None:
        kept_out.append(set(peers))

    path = tmp_path / "k.toml"
    path.write_text(edited("[tun]", '[tun]\nname = "kink-reload"'))
    reload = Reload(path, config.load(path), cast("Tunnels", Refusing()), people, cast("Any", None))
    path.write_text(edited('address = "east.example.com"', 'address = "192.0.2.1"', path.read_text()))
    with pytest.raises(ReloadRefused, match="there cannot be such a peer"):
        await reload()
    assert kept_out == [{"kink/east.example.com@EXAMPLE.COM"}, set()]


class Willing:
    """Tunnels that become whatever is wanted."""

    def __init__(self) -> None:
        self.peers: dict[str, PeerSettings] = {}
        self.asked: list[tuple[object, ...]] = []

    async def change(self, *wanted: object) -> None:
        self.asked.append(wanted)


async def test_who_stays_stays_where_it_is_and_the_rest_is_told(tmp_path: Path) -> None:
    path, tunnels, told = tmp_path / "k.toml", Willing(), list[config.Configuration]()
    device = '[tun]\nname = "kink-reload"'
    path.write_text(edited("[tun]", device))
    running = config.load(path)
    tunnels.peers["east"] = running.peers[0].settings("192.0.2.9")
    reload = Reload(path, running, cast("Tunnels", tunnels), lambda *_: None, told.append)
    path.write_text(edited("[[peer.policy]]", "lifetime = 60\n[[peer.policy]]", path.read_text()))
    answer = await reload()
    ((gone, come, _, altered, tun),) = tunnels.asked
    assert (gone, come, tun) == ((), (), reload.configuration.tun)
    assert isinstance(altered, list)
    assert altered == [Altered(reload.configuration.peers[0].settings("192.0.2.9"), frozenset())]
    assert answer == {"added": [], "changed": ["east"], "replaced": [], "removed": [], "unchanged": []}
    assert told == [reload.configuration]
