"""resolv.conf of a mount namespace, and services of the host that are not to be asked."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import pytest
from support.unprivileged import as_user

from kinkvpn.rootless.names import RESOLV_CONF, hide, use_resolvers
from kinkvpn.rootless.namespace import enter

pytestmark = pytest.mark.root


def test_names_are_asked_where_we_say_and_nothing_is_left() -> None:
    outside = RESOLV_CONF.read_text()

    def deed() -> object:
        enter()
        before = set(Path(gettempdir()).glob("kinkvpn-*"))
        use_resolvers(["10.2.0.53", "fd00:2::53"], ["example.com"])
        return RESOLV_CONF.read_text(), [str(each) for each in set(Path(gettempdir()).glob("kinkvpn-*")) - before]

    text, left = as_user(deed)
    assert text == "nameserver 10.2.0.53\nnameserver fd00:2::53\nsearch example.com\n"
    assert left == []
    assert RESOLV_CONF.read_text() == outside


def test_without_resolvers_the_file_is_the_host_s() -> None:
    def deed() -> object:
        enter()
        use_resolvers([])
        return RESOLV_CONF.read_text()

    assert as_user(deed) == RESOLV_CONF.read_text()


def test_what_is_hidden_is_empty_inside_alone() -> None:
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        Path(directory, "socket").touch()

        def deed() -> object:
            enter()
            hide([Path(directory), Path(directory, "absent")])
            return [str(each) for each in Path(directory).iterdir()]

        assert as_user(deed) == []
        assert [each.name for each in Path(directory).iterdir()] == ["socket"]
