"""The watch: another version of the model takes over between two requests, if it can."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.serving.reference import Resolved
from pipeline.serving.served import Served
from pipeline.serving.service import Service

SECONDS = 2.0  # between two looks at the registry
_log = logging.getLogger("pipeline.serving")


async def watch(
    service: Service, find: Callable[[], Resolved], keep: Callable[[Resolved], None] | None = None
) -> None:
    """Look for another version for as long as the server runs, and switch to it.

    A version that can't be used, or answers for other classes or images, is refused, and the present one
    goes on; so it does while the registry can't be reached.

    Args:
        service: whose model is replaced.
        find: where the model is now; is called in a thread.
        keep: is told what answers from now on.
    """
    # Always the same one: MLflow keeps connections for each.
    thread, loop = ThreadPoolExecutor(1, "watch"), asyncio.get_running_loop()
    refused: str | None = None
    said = ""
    while True:
        await asyncio.sleep(SECONDS)
        try:
            source = await loop.run_in_executor(thread, find)
        except PipelineError as error:
            if str(error) != said:
                _log.warning("The model goes on, but is not watched: %s", error)
                said = str(error)
            continue
        said = ""
        if source.version in (service.served.source.version, refused):
            continue
        try:
            successor = await loop.run_in_executor(thread, Served.load, source)
            _refuse_another_kind(successor, service.served)
        except PipelineError as error:
            _log.warning(
                "Version %s of %s is refused, version %s goes on: %s",
                source.version,
                source.name,
                service.served.source.version,
                error,
            )
            service.metrics.count("model_refusals_total")
            refused = source.version
            continue
        service.served, refused = successor, None
        if keep:
            keep(source)
        service.metrics.count("model_switches_total")
        say(f"Version {source.version} of {source.name} answers now.")


def _refuse_another_kind(successor: Served, present: Served) -> None:
    if successor.classes != present.classes or successor.image_shape != present.image_shape:
        raise PipelineError(
            f"it tells {len(successor.classes)} classes of images of {successor.image_shape} apart, not the "
            f"{len(present.classes)} of {present.image_shape} that this server was started for."
        )
