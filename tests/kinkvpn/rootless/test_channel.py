"""Messages and descriptors between two ends."""

from __future__ import annotations

import os

from kinkvpn.rootless.channel import Channel, close_all


def test_a_message_arrives_whole_with_its_descriptors() -> None:
    ours, theirs = Channel.pair()
    reader, writer = os.pipe()
    large = {"routes": [f"10.{number >> 8}.{number & 255}.0/24" for number in range(4096)]}
    ours.send(large, [writer])
    received = theirs.receive()
    assert received is not None
    message, (copy,) = received
    assert message == large
    assert not os.get_inheritable(copy)
    os.write(copy, b"through")
    assert os.read(reader, 100) == b"through"
    close_all([reader, writer, copy])
    ours.close()
    assert theirs.receive() is None
    theirs.close()


def test_whoever_has_gone_is_told_of_by_the_system() -> None:
    ours, theirs = Channel.pair()
    theirs.close()
    try:
        ours.send({})
    except ConnectionError:
        pass
    else:
        raise AssertionError("sent to nobody")
    ours.close()
