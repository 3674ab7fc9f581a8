"""What KINK peers do: pure machines that take ``(event, now)`` and return effects (RFC 4430 §3, §6, §9)."""
