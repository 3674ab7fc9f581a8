"""The ESP engine by itself, with SAs out of a file instead of KINK: for interoperability, measuring and debugging."""
