"""The daemon: sockets, the TUN device, addresses and routes, and the nursery that holds them together."""
