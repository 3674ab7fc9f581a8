"""How hypothesis runs here: the machines are shared, so slowness is never a failure; a failure prints its blob."""

from hypothesis import HealthCheck, settings

settings.register_profile("kinkvpn", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("kinkvpn")
