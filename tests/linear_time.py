"""Does the time of a function grow with the length of its input, and not with its square?"""

import time
from collections.abc import Callable

NUM_TRIES = 3  # other work on the machine may disturb one
MAX_RATIO = 3  # for twice the length: 2 where the time is linear, 4 where it is quadratic
NOISE_SECONDS = 0.02


def assert_linear(function: Callable[[int], object], length: int) -> None:
    """Assert that `function(2 * length)` takes about twice the processor time of `function(length)`, or next to nothing."""
    for _ in range(NUM_TRIES):
        seconds, seconds_of_double = processor_seconds(function, length), processor_seconds(function, 2 * length)
        if seconds_of_double <= MAX_RATIO * seconds + NOISE_SECONDS:
            return
    raise AssertionError(f"{length:,}: {seconds:.3f} s, {2 * length:,}: {seconds_of_double:.3f} s")


def processor_seconds(function: Callable[[int], object], length: int) -> float:
    """Return the processor time of `function(length)`."""
    started_at = time.process_time()
    function(length)
    return time.process_time() - started_at
