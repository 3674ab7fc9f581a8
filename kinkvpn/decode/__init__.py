"""``kinkvpn decode``: the KINK messages of a capture, opened with keytabs, explained, and what is wrong with them."""
