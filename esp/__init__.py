"""A userspace ESP engine (RFC 4303): packets in, datagrams out, and back. Knows nothing of KINK or Kerberos."""
