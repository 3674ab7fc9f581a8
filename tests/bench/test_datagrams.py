"""Over loopback, where nothing gets lost, as many datagrams arrive as are sent, and no more than the rate allows."""

from __future__ import annotations

import os
import threading

import pytest

from bench.datagrams import bound_to, main, receive, send


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("octets", "per_second"), [(36, 5000.0), (1300, 5000.0), (1300, 0.0)])
def test_all_that_is_sent_is_counted(address: str, octets: int, per_second: float) -> None:
    counted: list[int] = []
    told, tell = os.pipe()
    with bound_to(address, 0) as bound:
        receiver = threading.Thread(target=lambda: counted.append(receive(bound, told)))
        receiver.start()
        sent = send(address, bound.getsockname()[1], octets, per_second, 0.05)
        os.close(tell)  # the end of its input
        receiver.join()
    os.close(told)
    assert counted == [sent]
    assert sent <= per_second * 0.05 if per_second else sent > 0


def test_datagrams_have_the_size_that_was_asked_for() -> None:
    with bound_to("127.0.0.1", 0) as bound:
        bound.settimeout(20)
        send("127.0.0.1", bound.getsockname()[1], 36, 0.0, 0.0)
        assert len(bound.recv(100)) == 36


def test_other_words_are_answered_with_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "127.0.0.1"]) == 2
    assert "receive ADDRESS PORT" in capsys.readouterr().err
