"""Messages and descriptors between two ends."""

from __future__ import annotations

import errno
import os
import resource

import pytest

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


def test_a_descriptor_that_there_is_no_room_for_is_the_same_error_as_of_a_file() -> None:
    ours, theirs = Channel.pair()
    ours.send({}, [0])
    ours.send({"next": 1})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as refused:
            theirs.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert refused.value.errno == errno.EMFILE
    assert theirs.receive() == ({"next": 1}, [])
    ours.close()
    theirs.close()
