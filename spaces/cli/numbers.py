"""Numbers for people: three significant digits. Files hold them in full."""

import math

DIGITS = 3


def three(value: float) -> str:
    """Three significant digits, without an exponent: 1,010 or 47.1 or 0.00123; whole numbers below 1000 as they are."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    places = DIGITS - 1 - math.floor(math.log10(abs(value)))
    value = round(value, places)
    places = DIGITS - 1 - math.floor(math.log10(abs(value)))  # 99.96 became 100.0
    return f"{value:,.{max(0, places)}f}"


def duration(seconds: float | None) -> str:
    """An amount of time as people read it."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
