"""The PRF that no library has, on what of it the RFCs give vectors for; how it is used is in the tests of sessions."""

from __future__ import annotations

import pytest

from kinkvpn.kerberos.literal_prf import n_fold


@pytest.mark.parametrize(
    ("octets", "size", "folded"),
    [
        # RFC 3961 A.1
        (b"012345", 8, "be072631276b1955"),
        (b"password", 7, "78a07b6caf85fa"),
        (b"Rough Consensus, and Running Code", 8, "bb6ed30870b7f0e0"),
        (b"password", 21, "59e4a8ca7c0385c3c37b3f6d2000247cb6e6bd5b3e"),
        (b"MASSACHVSETTS INSTITVTE OF TECHNOLOGY", 24, "db3b0d8f0b061e603282b308a50841229ad798fab9540c1b"),
        (b"Q", 21, "518a54a2 15a8452a 518a54a2 15a8452a 518a54a2 15"),
        (b"ba", 21, "fb25d531 ae897449 9f52fd92 ea9857c4 ba24cf29 7e"),
        (b"kerberos", 16, "6b657262 65726f73 7b9b5b2b 93132b93"),
        (b"kerberos", 32, "6b657262 65726f73 7b9b5b2b 93132b93 5c9bdcda d95c9899 c4cae4de e6d6cae4"),
    ],
)
def test_n_fold_gives_the_rfc_s_vectors(octets: bytes, size: int, folded: str) -> None:
    assert n_fold(octets, size) == bytes.fromhex(folded)
