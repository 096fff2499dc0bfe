"""How many examples a property gets that needs more of them than the profile says."""

from hypothesis import settings


def examples(count: int) -> int:
    """``count`` under ``tox -e slow``, a quarter of it in CI."""
    return count if settings.default.max_examples == settings.get_profile("many").max_examples else count // 4
