"""Work in several processes gives the results in order, and says so if one of them is killed."""

import os
import signal

import pytest

from pipeline.data import pool
from pipeline.errors import PipelineError


def squared(number: int) -> tuple[int, int]:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, os.getpid()


def test_results_come_in_order_and_small_work_starts_no_process(monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 2)
    found = list(pool.in_order(squared, ((str(at), at, 1) for at in range(20)), 5))
    assert [(key, result) for key, (result, _) in found] == [(str(at), at**2) for at in range(20)]
    assert [process == os.getpid() for _, (_, process) in found] == [True] * 5 + [False] * 15


def test_a_process_that_is_killed_is_reported(monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 2)
    pieces = ((at, at if at < 9 else -1, 1) for at in range(40))
    with pytest.raises(PipelineError, match="was killed, probably for lack of memory"):
        list(pool.in_order(squared, pieces, 0))
