"""How far long work is, in words."""

from __future__ import annotations


def pace(done: int, n: int, what: str, seconds: float, before: int = 0) -> str:
    """ "144 of 500 tasks, 12/s, about 0:30 left". `before`: what was done when the `seconds` began; without a
    rate while nothing has come since."""
    said = f"{done:,} of {n:,} {what}"
    if done <= before or seconds <= 0:
        return said
    if done >= n:
        return f"{said} in {clock_text(seconds)}" if not before else said
    rate = (done - before) / seconds
    shown = f"{rate:.3g}/s" if rate >= 1 else f"{60 * rate:.2g}/min"
    return f"{said}, {shown}, about {clock_text((n - done) / rate)} left"


def clock_text(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
