"""Without root: a namespace of one's own, and a packet device that is carried out of it."""
