"""How hypothesis runs here: the machines are shared, so slowness is never a failure; a failure prints its blob.

The suite keeps within a minute with fifty examples for each property; `pytest --hypothesis-profile=thorough` looks for
longer.
"""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "kinkvpn", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, max_examples=50
)
settings.register_profile("thorough", parent=settings.get_profile("kinkvpn"), max_examples=2000)
settings.load_profile("kinkvpn")
