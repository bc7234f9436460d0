"""What holds for every test: how hypothesis draws its examples."""

import os

from hypothesis import settings

# No deadline: a shared machine is slow at times, and a slow example is no wrong one.
settings.register_profile("local", deadline=None)
# In CI the same examples every time, so that a red run is the change's doing; developers' machines draw new ones.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
