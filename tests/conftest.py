"""What holds for every test: how hypothesis draws its examples, and what is left to the night."""

import os

import pytest
from hypothesis import settings

# No deadline: a shared machine is slow at times, and a slow example is no wrong one.
settings.register_profile("local", deadline=None)
# In CI the same examples every time, so that a red run is the change's doing; developers' machines draw new ones.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `nightly` run only where they are asked for, whatever else is selected."""
    if "nightly" in config.option.markexpr:
        return
    late = [item for item in items if item.get_closest_marker("nightly")]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in set(late)]
