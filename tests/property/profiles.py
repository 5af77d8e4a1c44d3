"""How hard Hypothesis looks: the profile "ci" is for every run, "thorough" for a long evening.

``HYPOTHESIS_PROFILE=thorough`` chooses. A failure prints the blob that reproduces it.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=3_000, stateful_step_count=80)

PROFILE: Final = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
