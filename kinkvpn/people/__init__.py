"""A person with tickets and nothing else, on their way into a gateway's network."""

from kinkvpn.people.acceptance import Wishes
from kinkvpn.people.configuration import configuration_for

__all__ = ["Wishes", "configuration_for"]
