"""What keeps tunnels from coming up or from carrying, found by trying, with why and the command that mends it."""
