"""The limit on the threads of all calls."""

from __future__ import annotations

from toksample import _native


def set_num_threads(num_threads: int | None) -> None:
    """Set the most threads that a call may use, for all calls of this process that do not pass ``num_threads``.

    If no limit is set here, the environment variable ``TOKSAMPLE_NUM_THREADS`` sets it. Without either, the number of threads
    depends only on the amount of work and on the cores of the machine. A call on a single row uses one thread.

    Parameters
    ----------
    num_threads : int or None
        At least 1. None removes the limit that was set here.

    Raises
    ------
    ValueError
        If ``num_threads`` is less than 1.
    TypeError
        If it is not an integer.

    Examples
    --------
    >>> toksample.set_num_threads(2)
    >>> toksample.get_num_threads()
    2
    >>> toksample.set_num_threads(None)
    """
    _native.set_num_threads(num_threads)


def get_num_threads() -> int | None:
    """Return the most threads that a call may use if it does not pass ``num_threads``; None if there is no limit.

    Returns
    -------
    int or None
        The limit from :func:`set_num_threads`, or else from the environment variable ``TOKSAMPLE_NUM_THREADS``.

    Raises
    ------
    ValueError
        If the environment variable is not an integer >= 1.

    Examples
    --------
    >>> toksample.set_num_threads(4)
    >>> toksample.get_num_threads()
    4
    >>> toksample.set_num_threads(None)
    """
    return _native.get_num_threads()
