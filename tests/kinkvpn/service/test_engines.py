"""Which engine is chosen, why, and what it says of itself; and what it makes."""

from __future__ import annotations

import os

import pytest
import trio

from esp.dataplane import Dataplane
from esp.fit import Inside
from esp.native import libraries
from esp.offload import ALL_OFFLOADS, Offload
from esp.sa import Endpoint
from esp.testing import MemoryLink, MemoryTun
from kinkvpn.config import CipherLibrary, EngineChoice, EngineSettings
from kinkvpn.service.engines import ChosenEngine, choose_engine, native_ciphers
from kinkvpn.service.obstacles import StartRefused

NOT_BUILT = "not built: no C compiler (gcc), when kinkvpn was installed"


def test_what_is_not_built_is_not_taken_and_says_why() -> None:
    chosen = choose_engine(EngineSettings(), NOT_BUILT)
    assert (chosen.name, chosen.reason) == ("portable", f"the native one is {NOT_BUILT}")
    assert chosen.ciphers.startswith("OpenSSL ")
    assert chosen.headline == f"portable: {chosen.reason}; ciphers of {chosen.ciphers}"
    about = {"engine": "portable", "engine_reason": chosen.reason, "ciphers": chosen.ciphers, "queues": 1}
    assert chosen.fields == about


def test_what_is_not_built_and_asked_for_is_refused() -> None:
    with pytest.raises(StartRefused) as refused:
        choose_engine(EngineSettings(EngineChoice.NATIVE), NOT_BUILT)
    assert refused.value.reasons == (f'engine "native" is {NOT_BUILT}: expected "auto" or "portable"',)


@pytest.mark.parametrize("missing", [None, NOT_BUILT])
def test_the_portable_one_can_always_be_had(missing: str | None) -> None:
    chosen = choose_engine(EngineSettings(EngineChoice.PORTABLE, CipherLibrary.IPSEC_MB), missing)
    assert (chosen.name, chosen.reason) == ("portable", "chosen in the configuration or by ESP_ENGINE")


@pytest.mark.parametrize("choice", [EngineChoice.AUTO, EngineChoice.NATIVE])
def test_what_is_built_is_taken(choice: EngineChoice) -> None:
    chosen = choose_engine(EngineSettings(choice), None)
    assert chosen.name == "native"
    assert ("chosen" in chosen.reason) == (choice is EngineChoice.NATIVE)
    assert chosen.ciphers == ", ".join(libraries().values())


@pytest.mark.parametrize(("asked", "queues"), [(1, 1), (4, 4), (None, len(os.sched_getaffinity(0)))])
def test_the_native_one_has_as_many_queues_as_asked_for(asked: int | None, queues: int) -> None:
    chosen = choose_engine(EngineSettings(queues=asked), None)
    assert chosen.queues == chosen.fields["queues"] == queues
    assert ("4 queues" in chosen.headline) == (queues == 4)
    assert choose_engine(EngineSettings(EngineChoice.PORTABLE, queues=asked), None).queues == 1


def test_a_library_is_taken_where_it_is_there_and_refused_where_not() -> None:
    for library in (CipherLibrary.OPENSSL, CipherLibrary.IPSEC_MB):
        if library.value in libraries():
            assert native_ciphers(library) == libraries()[library.value]
        else:
            with pytest.raises(StartRefused, match=f'cipher library "{library.value}" is not here'):
                choose_engine(EngineSettings(library=library), None)


def test_the_portable_one_makes_the_portable_dataplane() -> None:
    async def made() -> Dataplane:
        chosen = choose_engine(EngineSettings(EngineChoice.PORTABLE), None)
        return chosen.dataplane(
            MemoryTun(), MemoryLink(Endpoint("192.0.2.1", 4500)), inside=Inside(), receive_control=lambda *_: None
        )

    dataplane = trio.run(made)
    assert (type(dataplane), dataplane.engine_name) == (Dataplane, "portable")


def test_the_portable_engine_leaves_cutting_to_the_kernel() -> None:
    portable = ChosenEngine("portable", "", "")
    assert portable.suited(ALL_OFFLOADS) == ALL_OFFLOADS.without(Offload.TSO, Offload.USO)
    assert set(portable.unsuited) == {Offload.TSO, Offload.USO}
    native = ChosenEngine("native", "", "")
    assert native.suited(ALL_OFFLOADS) == ALL_OFFLOADS
