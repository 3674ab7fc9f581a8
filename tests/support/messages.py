"""Hypothesis strategies for everything that the wire layer can build."""

from __future__ import annotations

from hypothesis import strategies as st

from kinkvpn.wire import isakmp, kink
from kinkvpn.wire.ipsec_doi import PayloadType as IsakmpType

U8, U16, U32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
OCTETS = st.binary(max_size=48)
IPSEC = st.sampled_from([2, 3])

ATTRIBUTES = st.builds(isakmp.Attribute, st.integers(0, 0x7FFF), U16 | OCTETS)
TRANSFORMS = st.builds(isakmp.Transform, U8, U8, st.lists(ATTRIBUTES, max_size=8).map(tuple))
TRANSFORM_LISTS = st.lists(TRANSFORMS, min_size=1, max_size=4).map(tuple)
PROPOSALS = st.builds(isakmp.Proposal, U8, IPSEC, st.binary(min_size=4, max_size=4), TRANSFORM_LISTS) | st.builds(
    isakmp.Proposal, U8, st.sampled_from([1, 4, 5, 200]), st.binary(max_size=16), TRANSFORM_LISTS
)
SAS = st.builds(isakmp.SecurityAssociation, st.lists(PROPOSALS, min_size=1, max_size=3).map(tuple))
IDENTIFICATIONS = st.sampled_from(sorted(isakmp.ID_LENGTHS.items())).flatmap(
    lambda kind: st.builds(
        isakmp.Identification, st.just(int(kind[0])), U8, U16, st.binary(min_size=kind[1], max_size=kind[1])
    )
)
DELETES = st.builds(
    isakmp.Delete, IPSEC, st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=5).map(tuple)
) | st.builds(
    isakmp.Delete, st.just(1), st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=3).map(tuple)
)
KNOWN_TYPES = {0, 1, 2, 3, 4, 5, 10, 11, 12}
UNKNOWNS = st.builds(isakmp.Unknown, U8.filter(lambda kind: kind not in KNOWN_TYPES), OCTETS)
ISAKMP_PAYLOADS: st.SearchStrategy[isakmp.IsakmpPayload] = st.one_of(
    SAS,
    st.builds(isakmp.KeyExchange, st.binary(min_size=1, max_size=64)),
    IDENTIFICATIONS,
    st.builds(isakmp.Nonce, st.binary(min_size=8, max_size=256)),
    st.builds(isakmp.Notify, U8, st.binary(max_size=16), U16, OCTETS),
    DELETES,
    UNKNOWNS,
)
QUICK_MODE = st.lists(ISAKMP_PAYLOADS, max_size=6).map(tuple)
# What IKE has beyond belongs to phase 1 and to NAT traversal.
assert set(IsakmpType) - {6, 7, 8, 9, 13, 20, 21} == KNOWN_TYPES

OTHER_VERSIONS = st.tuples(st.integers(0, 15), st.integers(0, 15)).filter(lambda version: version != (1, 0))
ISAKMPS = st.builds(kink.Isakmp, QUICK_MODE) | OTHER_VERSIONS.flatmap(
    lambda version: st.builds(
        kink.Isakmp, st.just(()), st.just(version[0]), st.just(version[1]), st.tuples(U8, st.binary(max_size=64))
    )
)
INNER_PAYLOADS: st.SearchStrategy[kink.KinkPayload] = st.one_of(
    st.builds(kink.ApReq, U32, OCTETS),
    st.builds(kink.ApRep, U32, OCTETS),
    st.builds(kink.KrbError, OCTETS),
    st.builds(kink.TgtReq, OCTETS),
    st.builds(kink.TgtRep, OCTETS),
    ISAKMPS,
    st.builds(kink.KinkError, U32),
)
PLAINTEXTS = st.lists(INNER_PAYLOADS, max_size=5).map(tuple)
OUTER = st.tuples(PLAINTEXTS, st.just(()) | st.tuples(st.builds(kink.Encrypt, OCTETS))).map(lambda two: two[0] + two[1])
MESSAGES = st.builds(kink.Message, st.sampled_from(kink.MessageType), U32, OUTER, st.booleans(), st.binary(max_size=64))
