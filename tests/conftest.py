"""What several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def drinks() -> Path:
    """Folder of the real drinks photos, which lie beside the repository where it is developed."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "drinks"
    if not (folder / "train.json").is_file():
        pytest.skip(f"the drinks photos are not at {folder}")
    return folder
