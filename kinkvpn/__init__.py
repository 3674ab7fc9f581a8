"""kinkvpn: IPsec security associations by KINK (RFC 4430), carried by the userspace ESP engine in :mod:`esp`."""

__version__ = "0.1.0"
