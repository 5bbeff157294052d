"""What all tests share: how hypothesis draws its examples.

The default profile draws the same examples in every run, so that a red build is red for everybody. With
``HYPOTHESIS_PROFILE=search`` it looks for new ones, many more.
"""

import os

from hypothesis import HealthCheck, settings

# No deadline: the machines of CI are slow at times, and a slow example is not a wrong one. No database: with the same
# examples each time there is nothing to remember, and the tree stays clean.
settings.register_profile(
    "same",
    derandomize=True,
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
