"""What all tests share: reproducible examples, a seeded torch, and one thread."""

import os

# Several test processes share few cores, and OpenMP threads that spin for each other then cost 100 × the work itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("tests.cells", "tests.method_contract")
# ``tox -e slow`` asks for many examples with --hypothesis-profile.
for name, examples in (("few", 10), ("many", 100)):
    settings.register_profile(name, deadline=None, derandomize=True, max_examples=examples, database=None)
settings.load_profile("few")
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> None:
    """Tests neither use nor fill the user's cache, and share one among themselves and their processes."""
    os.environ["APPROXNAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def seeded_torch() -> None:
    """Every test draws the same torch numbers, whatever ran before it."""
    torch.manual_seed(0)
