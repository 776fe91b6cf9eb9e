"""Process pieces of work on all cores, in forked processes that stay only a few pieces ahead."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipeline.errors import PipelineError
from pipeline.processes.system import die_with_parent

Key = TypeVar("Key")
Piece = TypeVar("Piece")
Result = TypeVar("Result")
_AHEAD = 2  # pieces that may be waiting for each process


def in_order(
    work: Callable[[Piece], Result], pieces: Iterable[tuple[Key, Piece, int]], few: int
) -> Iterator[tuple[Key, Result]]:
    """Yield each key with the result of `work` on its piece, in order and in bounded memory.

    Args:
        work: A picklable function; what it uses must have been imported or opened before.
        pieces: Each with a key, which stays in this process, and its size.
        few: The total size that is processed here, which takes less time than starting processes.

    Raises:
        PipelineError: If one of the processes was killed.
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
    except BrokenProcessPool:
        raise PipelineError(
            "one of the processes that read its pictures was killed, probably for lack of memory: end other "
            "programs, and run it again"
        ) from None
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Return the number of processes that can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    die_with_parent()
    # Ctrl-C reaches all processes of a terminal, but only the one that owns the pool should end the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
