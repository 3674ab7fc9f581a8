"""Numbers of ISAKMP and the IPsec DOI that KINK carries; numbers only, each with where it is assigned. Pure.

RFC 2407 and RFC 2408 assign the first of them, IANA's isakmp-registry and ipsec-registry the later ones.
"""

from __future__ import annotations

from enum import IntEnum

IPSEC_DOI = 1  # RFC 2407 §4.1; RFC 4430 §4
SIT_IDENTITY_ONLY = 1  # RFC 2407 §4.2.1; the only one KINK has: RFC 4430 §5

# RFC 2408 §3.14.1, RFC 4430 §5.5: notify types up to here are errors, beyond are status.
LAST_ERROR_NOTIFY = 16383
# RFC 2408 §3.14.1: status types for private use.
FIRST_PRIVATE_STATUS, LAST_PRIVATE_STATUS = 32768, 40959


class PayloadType(IntEnum):
    """ISAKMP payload types (RFC 2408 §3.1)."""

    NONE = 0  # RFC 2408 §3.1
    SA = 1  # RFC 2408 §3.4, RFC 2407 §4.6.1
    PROPOSAL = 2  # RFC 2408 §3.5, only inside SA
    TRANSFORM = 3  # RFC 2408 §3.6, only inside a proposal
    KE = 4  # RFC 2408 §3.7, RFC 4430 §5.7
    ID = 5  # RFC 2408 §3.8, RFC 2407 §4.6.2
    CERT = 6  # RFC 2408 §3.9, phase 1 only
    CR = 7  # RFC 2408 §3.10, phase 1 only
    HASH = 8  # RFC 2408 §3.11, not used in KINK: RFC 4430 §5
    SIG = 9  # RFC 2408 §3.12, phase 1 only
    NONCE = 10  # RFC 2408 §3.13, RFC 2409 §5
    NOTIFY = 11  # RFC 2408 §3.14, RFC 2407 §4.6.3
    DELETE = 12  # RFC 2408 §3.15
    VENDOR_ID = 13  # RFC 2408 §3.16, phase 1 only
    NAT_D = 20  # RFC 3947 §3.2, phase 1 only
    NAT_OA = 21  # RFC 3947 §5.2


class Protocol(IntEnum):
    """Security protocol identifiers (RFC 2407 §4.4.1)."""

    ISAKMP = 1  # RFC 2407 §4.4.1.1
    AH = 2  # RFC 2407 §4.4.1.2
    ESP = 3  # RFC 2407 §4.4.1.3
    IPCOMP = 4  # RFC 2407 §4.4.1.4


class EspTransform(IntEnum):
    """ESP transform identifiers (RFC 2407 §4.4.4 and IANA ipsec-registry)."""

    DES_IV64 = 1  # RFC 2407 §4.4.4.1
    DES = 2  # RFC 2407 §4.4.4.2
    TRIPLE_DES = 3  # RFC 2407 §4.4.4.3
    RC5 = 4  # RFC 2407 §4.4.4.4
    IDEA = 5  # RFC 2407 §4.4.4.5
    CAST = 6  # RFC 2407 §4.4.4.6
    BLOWFISH = 7  # RFC 2407 §4.4.4.7
    TRIPLE_IDEA = 8  # RFC 2407 §4.4.4.8
    DES_IV32 = 9  # RFC 2407 §4.4.4.9
    RC4 = 10  # RFC 2407 §4.4.4.10
    NULL = 11  # RFC 2407 §4.4.4.11, RFC 2410
    AES_CBC = 12  # RFC 3602 §5.2
    AES_CTR = 13  # RFC 3686 §5.3
    AES_CCM_8 = 14  # RFC 4309 §7.3
    AES_CCM_12 = 15  # RFC 4309 §7.3
    AES_CCM_16 = 16  # RFC 4309 §7.3
    AES_GCM_8 = 18  # RFC 4106 §8.3
    AES_GCM_12 = 19  # RFC 4106 §8.3
    AES_GCM_16 = 20  # RFC 4106 §8.3
    SEED_CBC = 21  # RFC 4196
    CAMELLIA = 22  # RFC 4312
    NULL_AUTH_AES_GMAC = 23  # RFC 4543
    CHACHA20_POLY1305_PRIVATE = 249  # RFC 2407 §6.5 private use; ours: RFC 7634 has an IKEv2 number only


class AhTransform(IntEnum):
    """AH transform identifiers (RFC 2407 §4.4.3 and IANA ipsec-registry)."""

    MD5 = 2  # RFC 2407 §4.4.3.1
    SHA = 3  # RFC 2407 §4.4.3.2
    DES = 4  # RFC 2407 §4.4.3.3
    SHA2_256 = 5  # RFC 4868
    SHA2_384 = 6  # RFC 4868
    SHA2_512 = 7  # RFC 4868
    RIPEMD = 8  # RFC 2857
    AES_XCBC_MAC = 9  # RFC 3566
    RSA = 10  # RFC 4359
    AES_128_GMAC = 11  # RFC 4543
    AES_192_GMAC = 12  # RFC 4543
    AES_256_GMAC = 13  # RFC 4543


class SaAttribute(IntEnum):
    """SA attribute classes (RFC 2407 §4.5); RFC 4430 §5.1 lists 1, 2, 4, 5, 6 and 7."""

    LIFE_TYPE = 1  # RFC 2407 §4.5, basic
    LIFE_DURATION = 2  # RFC 2407 §4.5, variable
    GROUP_DESCRIPTION = 3  # RFC 2407 §4.5, basic; comes with a KE payload
    ENCAPSULATION_MODE = 4  # RFC 2407 §4.5, basic
    AUTHENTICATION_ALGORITHM = 5  # RFC 2407 §4.5, basic
    KEY_LENGTH = 6  # RFC 2407 §4.5, basic, in bits
    KEY_ROUNDS = 7  # RFC 2407 §4.5, basic
    COMPRESS_DICTIONARY_SIZE = 8  # RFC 2407 §4.5, basic
    COMPRESS_PRIVATE_ALGORITHM = 9  # RFC 2407 §4.5, variable
    ECN_TUNNEL = 10  # RFC 3168, basic
    EXTENDED_SEQUENCE_NUMBER = 11  # RFC 4304, basic


class Group(IntEnum):
    """Group Description values that we know (IANA ipsec-registry, Transform Type 4 of IKEv2 for the last two)."""

    MODP_2048 = 14  # RFC 3526 §3
    MODP_3072 = 15  # RFC 3526 §4
    MODP_4096 = 16  # RFC 3526 §5
    MODP_6144 = 17  # RFC 3526 §6
    MODP_8192 = 18  # RFC 3526 §7
    ECP_256 = 19  # RFC 5903 §3.1
    ECP_384 = 20  # RFC 5903 §3.2
    ECP_521 = 21  # RFC 5903 §3.3
    CURVE25519 = 31  # RFC 8031 §2; IKEv1 has no number of its own for it
    CURVE448 = 32  # RFC 8031 §2; likewise

    @property
    def label(self) -> str:
        """What configurations, status and logs call it."""
        return {Group.CURVE25519: "x25519", Group.CURVE448: "x448"}.get(self, self.name.lower().replace("_", ""))


class LifeType(IntEnum):
    """SA Life Type values (RFC 2407 §4.5)."""

    SECONDS = 1  # RFC 2407 §4.5
    KILOBYTES = 2  # RFC 2407 §4.5


DEFAULT_LIFE_SECONDS = 28800  # RFC 2407 §4.5: eight hours when no lifetime is given


class EncapsulationMode(IntEnum):
    """Encapsulation Mode values (RFC 2407 §4.5)."""

    TUNNEL = 1  # RFC 2407 §4.5
    TRANSPORT = 2  # RFC 2407 §4.5
    UDP_TUNNEL = 3  # RFC 3947 §5.1
    UDP_TRANSPORT = 4  # RFC 3947 §5.1
    UDP_TUNNEL_DRAFT = 61443  # draft-ietf-ipsec-nat-t-ike-02, understood on receipt
    UDP_TRANSPORT_DRAFT = 61444  # draft-ietf-ipsec-nat-t-ike-02, understood on receipt


class AuthenticationAlgorithm(IntEnum):
    """Authentication Algorithm values (RFC 2407 §4.5 and IANA ipsec-registry)."""

    HMAC_MD5 = 1  # RFC 2407 §4.5
    HMAC_SHA = 2  # RFC 2407 §4.5
    DES_MAC = 3  # RFC 2407 §4.5
    KPDK = 4  # RFC 2407 §4.5
    HMAC_SHA2_256 = 5  # RFC 4868
    HMAC_SHA2_384 = 6  # RFC 4868
    HMAC_SHA2_512 = 7  # RFC 4868
    HMAC_RIPEMD = 8  # RFC 2857
    AES_XCBC_MAC = 9  # RFC 3566
    SIG_RSA = 10  # RFC 4359
    AES_128_GMAC = 11  # RFC 4543
    AES_192_GMAC = 12  # RFC 4543
    AES_256_GMAC = 13  # RFC 4543


class ExtendedSequenceNumber(IntEnum):
    """Extended (64-bit) Sequence Number values."""

    ESN_64 = 1  # RFC 4304


class IdType(IntEnum):
    """Identification types that KINK allows (RFC 4430 §5.3, RFC 2407 §4.6.2.1)."""

    IPV4_ADDR = 1  # RFC 2407 §4.6.2.2
    IPV4_ADDR_SUBNET = 4  # RFC 2407 §4.6.2.5
    IPV6_ADDR = 5  # RFC 2407 §4.6.2.6
    IPV6_ADDR_SUBNET = 6  # RFC 2407 §4.6.2.7
    IPV4_ADDR_RANGE = 7  # RFC 2407 §4.6.2.8
    IPV6_ADDR_RANGE = 8  # RFC 2407 §4.6.2.9


class NotifyType(IntEnum):
    """Notify message types (RFC 2408 §3.14.1, RFC 2407 §4.6.3); KINK sends 1, 11, 14 and 16 (RFC 4430 §5.5)."""

    INVALID_PAYLOAD_TYPE = 1  # RFC 4430 §5.5; data: the one-octet payload type
    DOI_NOT_SUPPORTED = 2  # RFC 2408 §3.14.1
    SITUATION_NOT_SUPPORTED = 3  # RFC 2408 §3.14.1
    INVALID_COOKIE = 4  # RFC 2408 §3.14.1
    INVALID_MAJOR_VERSION = 5  # RFC 2408 §3.14.1; in KINK it is KINK_BADQMVERS
    INVALID_MINOR_VERSION = 6  # RFC 2408 §3.14.1; in KINK it is KINK_BADQMVERS
    INVALID_EXCHANGE_TYPE = 7  # RFC 2408 §3.14.1
    INVALID_FLAGS = 8  # RFC 2408 §3.14.1
    INVALID_MESSAGE_ID = 9  # RFC 2408 §3.14.1
    INVALID_PROTOCOL_ID = 10  # RFC 2408 §3.14.1
    INVALID_SPI = 11  # RFC 4430 §5.5
    INVALID_TRANSFORM_ID = 12  # RFC 2408 §3.14.1
    ATTRIBUTES_NOT_SUPPORTED = 13  # RFC 2408 §3.14.1
    NO_PROPOSAL_CHOSEN = 14  # RFC 4430 §5.5
    BAD_PROPOSAL_SYNTAX = 15  # RFC 2408 §3.14.1
    PAYLOAD_MALFORMED = 16  # RFC 4430 §5.5
    INVALID_KEY_INFORMATION = 17  # RFC 2408 §3.14.1
    INVALID_ID_INFORMATION = 18  # RFC 2408 §3.14.1
    INVALID_CERT_ENCODING = 19  # RFC 2408 §3.14.1
    INVALID_CERTIFICATE = 20  # RFC 2408 §3.14.1
    CERT_TYPE_UNSUPPORTED = 21  # RFC 2408 §3.14.1
    INVALID_CERT_AUTHORITY = 22  # RFC 2408 §3.14.1
    INVALID_HASH_INFORMATION = 23  # RFC 2408 §3.14.1
    AUTHENTICATION_FAILED = 24  # RFC 2408 §3.14.1
    INVALID_SIGNATURE = 25  # RFC 2408 §3.14.1
    ADDRESS_NOTIFICATION = 26  # RFC 2408 §3.14.1
    NOTIFY_SA_LIFETIME = 27  # RFC 2408 §3.14.1
    CERTIFICATE_UNAVAILABLE = 28  # RFC 2408 §3.14.1
    UNSUPPORTED_EXCHANGE_TYPE = 29  # RFC 2408 §3.14.1
    UNEQUAL_PAYLOAD_LENGTHS = 30  # RFC 2408 §3.14.1
    CONNECTED = 16384  # RFC 2408 §3.14.1
    RESPONDER_LIFETIME = 24576  # RFC 2407 §4.6.3.1
    REPLAY_STATUS = 24577  # RFC 2407 §4.6.3.2
    INITIAL_CONTACT = 24578  # RFC 2407 §4.6.3.3
    KINKVPN_CAPABILITIES = 34430  # RFC 2408 §3.14.1 private use; ours, as the next six: docs/extensions.md
    KINKVPN_OBSERVED_ENDPOINT = 34431  # RFC 2408 §3.14.1 private use
    KINKVPN_INNER_MTU = 34432  # RFC 2408 §3.14.1 private use
    KINKVPN_USE_AGGFRAG = 34433  # RFC 2408 §3.14.1 private use
    KINKVPN_PADDING = 34434  # RFC 2408 §3.14.1 private use
    KINKVPN_CONFIGURATION = 34435  # RFC 2408 §3.14.1 private use
    KINKVPN_MACHINE = 34436  # RFC 2408 §3.14.1 private use
