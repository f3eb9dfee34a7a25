"""Does the time of a function grow with the length of its input, and not with its square?"""

import time
from collections.abc import Callable
from typing import Any

FACTOR = 8  # between the two lengths: far from 64, which a quadratic time would grow by
MAX_RATIO = 3 * FACTOR
NUM_TRIES = 3  # other work on the machine may disturb one
NOISE_SECONDS = 0.05


def assert_linear(function: Callable[[Any], object], length: int, make: Callable[[int], Any] = int) -> None:
    """Assert that `function` takes about 8 times the processor time for `length` as for an eighth of it, or next to nothing.

    It gets what `make` returns for the length, which is not timed; without `make`, the length.
    """
    for _ in range(NUM_TRIES):
        shorter, whole = (processor_seconds(function, make(each)) for each in (length // FACTOR, length))
        if whole <= MAX_RATIO * shorter + NOISE_SECONDS:
            return
    raise AssertionError(f"{length // FACTOR:,}: {shorter:.3f} s, {length:,}: {whole:.3f} s of {str(make(40))[:40]!r}")


def processor_seconds(function: Callable[[Any], object], given: Any) -> float:
    """Return the processor time of `function(given)`."""
    started_at = time.process_time()
    function(given)
    return time.process_time() - started_at
