"""Watch the registry, and switch to another version of the model between two requests."""

import asyncio
import logging
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.serving.reference import Resolved
from pipeline.serving.served import Served
from pipeline.serving.service import Service

SECONDS = 2.0  # between two checks of the registry
_log = logging.getLogger("pipeline.serving")


async def watch(
    service: Service, find: Callable[[], Resolved], keep: Callable[[Resolved], None] | None = None
) -> None:
    """Check for another version for as long as the server runs, and switch to it.

    A version that can't be loaded, or has other classes or another image size, is refused, and the current
    one stays in use. It also stays in use while the registry can't be reached, or the disk is full.

    `find` finds the model that the registry names now, in a thread; `keep` is called with each new model
    before it is used.
    """
    # Always the same thread, since MLflow keeps connections for each.
    thread, loop = ThreadPoolExecutor(1, "watch"), asyncio.get_running_loop()
    refused: tuple[str | None, ...] = ()
    said = ""
    while True:
        await asyncio.sleep(SECONDS)
        try:
            source = await loop.run_in_executor(thread, find)
            if _identity(source) in (_identity(service.served.source), refused):
                said = ""
                continue
            try:
                successor = await loop.run_in_executor(thread, Served.load, source)
                _refuse_another_kind(successor, service.served)
            except PipelineError as error:
                _log.warning(
                    "Version %s of %s is refused, version %s stays in use: %s",
                    source.version,
                    source.name,
                    service.served.source.version,
                    error,
                )
                service.metrics.count("model_refusals_total")
                refused = _identity(source)
                continue
            if keep:
                keep(source)
        except Exception as error:
            # Whatever it was, such as a full disk: this task must not end, or no other version would be used.
            text = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
            if text != said:
                _log.warning(
                    "The model stays in use. Another version can't be looked up or used, which is tried "
                    "again every %g seconds: %s",
                    SECONDS,
                    text,
                )
                said = text
            continue
        service.served, refused, said = successor, (), ""
        service.metrics.count("model_switches_total")
        say(f"Version {source.version} of {source.name} is now in use.")


def _identity(source: Resolved) -> tuple[str | None, ...]:
    # If a registered model is deleted in MLflow, the numbers of its versions are given again.
    return source.version, source.model_id


def _refuse_another_kind(successor: Served, present: Served) -> None:
    if successor.classes != present.classes or successor.image_shape != present.image_shape:
        raise PipelineError(
            f"it has {_kind(successor)}, but this server was started with {_kind(present)}. Restart it to "
            "use this version."
        )


def _kind(served: Served) -> str:
    names = textwrap.shorten(", ".join(served.classes), 200, placeholder=" ...")
    return f"{len(served.classes)} classes ({names}) and images of {served.image_shape}"
