"""What the engine and its link hand each other."""

from esp.datagram import Incoming, Outgoing
from esp.sa import Endpoint

HERE = Endpoint("192.0.2.1", 4500)


def test_a_link_that_knows_nothing_of_outer_headers_need_not_say_so() -> None:
    assert Outgoing(b"x", HERE) == (b"x", HERE, 0, None, 0, 50)
    assert Incoming(b"x", HERE) == (b"x", HERE, 0)
