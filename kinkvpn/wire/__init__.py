"""What KINK (RFC 4430) and Quick Mode payloads (RFC 2407, 2408, 2409) look like on the wire. Pure."""
