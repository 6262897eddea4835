"""How many threads a call may use."""

from __future__ import annotations

from toksample import _native


def set_num_threads(num_threads: int | None) -> None:
    """Set how many threads a call uses at most if it does not say so itself, in the whole process.

    Without it, the environment variable ``TOKSAMPLE_NUM_THREADS`` says how many, and without that only the work and the cores
    of the machine decide. A call on a single row uses one thread.

    Parameters
    ----------
    num_threads : int or None
        >= 1. None takes back what was set.

    Raises
    ------
    ValueError, TypeError

    Examples
    --------
    >>> toksample.set_num_threads(2)
    >>> toksample.get_num_threads()
    2
    >>> toksample.set_num_threads(None)
    """
    _native.set_num_threads(num_threads)


def get_num_threads() -> int | None:
    """Return how many threads a call uses at most if it does not say so itself; None if there is no limit.

    Returns
    -------
    int or None
        What :func:`set_num_threads` was given, or else what the environment variable ``TOKSAMPLE_NUM_THREADS`` says.

    Raises
    ------
    ValueError
        If the environment variable is not an integer >= 1.
    """
    return _native.get_num_threads()
