"""A disk that is full once a file has so many bytes, for functions that run in the tests' own process."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(num_bytes):
    """Within the block, no file of this process can become longer than `num_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
