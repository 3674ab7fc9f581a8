"""``kinkvpn demo``: a throwaway realm, two hosts in namespaces, two daemons, and proof of what crossed the wire."""
