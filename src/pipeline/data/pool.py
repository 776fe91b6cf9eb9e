"""Work on all cores: pieces are done in forked processes, a few ahead of who takes the results."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from pipeline.processes.system import die_with_parent

Key = TypeVar("Key")
Piece = TypeVar("Piece")
Result = TypeVar("Result")
_AHEAD = 2  # pieces for each process


def in_order(
    work: Callable[[Piece], Result], pieces: Iterable[tuple[Key, Piece, int]], few: int
) -> Iterator[tuple[Key, Result]]:
    """What `work` makes of each piece, in the order of the pieces and in bounded memory.

    Args:
        work: a function that a process can be told by name; what it uses was imported or opened before.
        pieces: each with a key, which stays here, and how much it is.
        few: how much is done here, before the processes would have started.
    """
    pool: ProcessPoolExecutor | None = None
    waiting: deque[tuple[Key, Future[Result]]] = deque()
    begun = 0
    try:
        for key, piece, size in pieces:
            begun += size
            if begun <= few or cores() == 1:
                yield key, work(piece)
                continue
            if pool is None:
                pool = ProcessPoolExecutor(cores(), multiprocessing.get_context("fork"), _begin)
            waiting.append((key, pool.submit(work, piece)))
            if len(waiting) > _AHEAD * cores():
                first, future = waiting.popleft()
                yield first, future.result()
        for key, future in waiting:
            yield key, future.result()
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many processes may work at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    die_with_parent()
    # Ctrl-C reaches all processes of a terminal; the one that has the pool ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
