"""Pictures that wait together are computed together, and no other request waits for them."""

import asyncio
import multiprocessing
import time

import numpy as np
import pytest

from photos import png
from pipeline.data.reader import PictureError
from pipeline.serving.batching import Batcher, OverloadedError
from pipeline.serving.metrics import Metrics
from pipeline.serving.served import Answer


class Slow:
    """A model that is slow to read a picture, and records what it computed together."""

    def __init__(self, seconds: float):
        self.seconds, self.sizes = seconds, []

    def read(self, picture, small=False):
        time.sleep(self.seconds)
        if picture == b"bad":
            raise PictureError("The picture", "is bad")
        if picture == b"broken":
            raise ZeroDivisionError
        return np.array([len(picture)])

    def classify(self, images):
        self.sizes.append(len(images))
        return [Answer(image, str(image[0]), 1.0, np.ones(1, np.float32), None) for image in images]


def run(model, pictures, *, seconds, waiting=100):
    """Ask for pictures at the same time; return the answers and the longest pause of the event loop."""

    async def ask():
        batcher = Batcher(seconds=seconds, waiting=waiting)
        done, pause, last = asyncio.Event(), 0.0, time.monotonic()

        async def tick():
            nonlocal pause, last
            while not done.is_set():
                await asyncio.sleep(0.005)
                pause, last = max(pause, time.monotonic() - last), time.monotonic()

        ticking = asyncio.create_task(tick())
        answers = await asyncio.gather(
            *(batcher.answer(model, [picture]) for picture in pictures), return_exceptions=True
        )
        done.set()
        await ticking
        batcher.close()
        return [answer if isinstance(answer, Exception) else answer[0] for answer in answers], pause

    return asyncio.run(ask())


def test_waiting_pictures_are_computed_together_and_each_gets_its_own_answer():
    model = Slow(0.005)
    answers, _ = run(model, [b"x" * number for number in range(1, 11)], seconds=5)
    assert [answer.label for answer in answers] == [str(number) for number in range(1, 11)]
    assert sum(model.sizes) == 10
    assert max(model.sizes) > 5


def test_no_picture_waits_longer_for_others_than_the_limit():
    model = Slow(0.02)
    run(model, [b"x"] * 12, seconds=0.05)
    assert max(model.sizes) <= 3
    model = Slow(0.001)
    run(model, [b"x"] * 12, seconds=0)
    assert model.sizes == [1] * 12


def test_a_single_picture_is_computed_at_once():
    model = Slow(0)
    began = time.monotonic()
    run(model, [b"x"], seconds=30)
    assert time.monotonic() - began < 5
    assert model.sizes == [1]


def test_an_unreadable_picture_does_not_affect_others():
    model = Slow(0.001)
    answers, _ = run(model, [b"x", b"bad", b"broken", b"xx"], seconds=5)
    assert [type(answer) for answer in answers] == [Answer, PictureError, ZeroDivisionError, Answer]


def test_the_event_loop_is_not_blocked():
    _, pause = run(Slow(0.8), [b"x"] * 2, seconds=0)
    assert pause < 0.6


@pytest.mark.parametrize("large", [b"x" * (2**14 + 1), b"a few bytes that unpack to millions of pixels"])
def test_small_pictures_do_not_wait_for_large_ones(large):
    class SlowIfLarge(Slow):
        def read(self, picture, small=False):
            if picture == large and small:
                raise PictureError("The picture", "has more pixels")
            self.seconds = 1.0 if picture == large else 0.0
            return super().read(picture)

    async def ask():
        batcher = Batcher(seconds=0, waiting=10)
        waited_for = asyncio.ensure_future(batcher.answer(model, [large]))
        await asyncio.sleep(0.1)
        [small] = await batcher.answer(model, [b"x" * 2**14])
        assert not waited_for.done()
        [last] = await waited_for
        batcher.close()
        return small.label, last.label

    model = SlowIfLarge(0)
    assert asyncio.run(ask()) == (str(2**14), str(len(large)))


def test_a_small_file_of_many_pixels_is_not_read_as_a_small_picture(served):
    pixels = np.diag(np.full(600, 255, np.uint8))
    encoded = png(pixels)
    assert len(encoded) < 2**14
    with pytest.raises(PictureError, match="has 600×600 pixels"):
        served.read(encoded, small=True)
    assert served.read(encoded).shape == (28, 28)
    assert served.read(png(pixels[:500, :500]), small=True).shape == (28, 28)


def test_waiting_pictures_are_answered_at_shutdown():
    class LargeForOne(Slow):
        def read(self, picture, small=False):
            time.sleep(0.1)
            if small:
                raise PictureError("The picture", "has more pixels")
            return super().read(picture)

    async def ask():
        batcher = Batcher(seconds=0, waiting=10)
        asked = asyncio.ensure_future(batcher.answer(LargeForOne(0), [b"x"]))
        await asyncio.sleep(0.01)
        batcher.close()
        [answer] = await asyncio.wait_for(asked, timeout=10)
        return answer.label

    assert asyncio.run(ask()) == "1"


def test_pictures_beyond_the_length_of_the_queue_are_refused_at_once():
    answers, _ = run(Slow(0.01), [b"x"] * 10, seconds=0, waiting=6)
    assert [isinstance(answer, OverloadedError) for answer in answers].count(True) == 4


MANY = 20_000


def count(path, barrier):
    metrics = Metrics(["a", "b"], 2, path)
    barrier.wait(60)
    for _ in range(MANY):
        metrics.picture("a", False)
    barrier.wait(60)


def test_the_processes_of_a_server_count_together_and_lose_nothing(tmp_path):
    path, spawn = tmp_path / "counts", multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    processes = [spawn.Process(target=count, args=(path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    # A process that replaces one that has ended continues its counts.
    metrics = Metrics(["a", "b"], 2, path)
    metrics.picture("b", True)
    text = metrics.text({"name": 'a"b\\c'})
    assert f'pipeline_pictures_total{{label="a"}} {2 * MANY}\n' in text
    assert 'pipeline_pictures_total{label="b"} 1\n' in text
    assert "pipeline_pictures_unlike_total 1" in text
    assert 'pipeline_model_info{name="a\\"b\\\\c"} 1' in text


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.003, 0.2, 60.0])
def test_the_histogram_counts_each_request_once(seconds):
    metrics = Metrics(["a"])
    metrics.request("predict", 200, seconds)
    lines = metrics.text({}).splitlines()
    buckets = [line for line in lines if line.startswith('pipeline_request_seconds_bucket{route="predict"')]
    for line in buckets:
        bound = float(line.split('le="')[1].split('"')[0])
        assert line.endswith(f" {int(seconds <= bound)}"), line
