"""``kinkvpn top``: a running daemon, live in a terminal."""
