"""``kinkvpn proxy``: a tunnel for programs that can use a proxy, with no TUN device and no capability."""
