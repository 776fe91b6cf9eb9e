"""What is typed after `pipeline add-data`."""

import re
from dataclasses import dataclass
from typing import Any, get_args

from pipeline.config.section import ReaderSection
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Wishes:
    """What was typed; None: nothing."""

    path: str
    name: str | None = None
    image_size: str | None = None
    colour: str | None = None
    resize: str | None = None
    test_fraction: float | None = None
    force: bool = False
    update: bool = False


def reader_of(wishes: Wishes) -> dict[str, Any]:
    """What the options say of the reader.

    Raises:
        PipelineError: an option has no value of its kind.
    """
    wished: dict[str, Any] = {}
    if wishes.image_size is not None:
        match = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", wishes.image_size)
        if not match:
            raise PipelineError(
                f"--image-size {wishes.image_size} is no size: write height and width in pixels, as in 64x64"
            )
        wished["image_size"] = [int(match[1]), int(match[2] or match[1])]
    for key in ("colour", "resize"):
        value = getattr(wishes, key)
        if value is not None:
            allowed = get_args(ReaderSection.model_fields[key].annotation)
            if value not in allowed:
                raise PipelineError(f"--{key} is {value!r}: should be {' or '.join(allowed)}")
            wished[key] = value
    return wished
