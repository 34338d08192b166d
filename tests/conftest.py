"""Settings that hold for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No time limit a case: on a busy machine it measures the neighbours, and a property that holds would fail.
settings.register_profile("fusion", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fusion")
