"""Types and base classes of the sections of the configuration."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Side = Annotated[int, Field(ge=1, le=10_000)]  # of an image, in pixels
Seed = Annotated[int, Field(ge=0, lt=2**32)]
_DIGEST = r"^[0-9a-f]{64}$"
_NAME = r"^[\w][\w .,=+-]{0,99}$"
_ADDRESS = r"^[a-z][a-z0-9+]*:[^\s@]+$"
Digest = Annotated[str, Field(pattern=_DIGEST)]
Name = Annotated[str, Field(pattern=_NAME)]
Address = Annotated[str, Field(pattern=_ADDRESS)]
Package = Annotated[str, Field(pattern=r"^(@[a-z0-9][\w.-]*/)?[a-z0-9][\w.+-]*$")]
# Descriptions for messages; other patterns are shown as they are.
WORDS = {
    _DIGEST: "64 hexadecimal digits",
    _NAME: "up to 100 letters, digits, spaces and _.,=+-, with a letter, a digit or _ first",
    _ADDRESS: "an address such as http://127.0.0.1:5000, without a password",
}
Head = Literal["softmax", "sigmoid"]
Activation = Literal["relu", "gelu", "silu", "tanh", "elu", "selu"]


class Section(BaseModel):
    """A frozen section, which rejects unknown keys and wrong types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelSection(Section):
    """The keys of every model's section; `name` is that of the model's module in `pipeline.models`."""

    name: str
    head: Head


class SourceSection(Section):
    """The key of every source's section: `kind`, the name of its module in `pipeline.data.sources`."""

    kind: str


class ReaderSection(Section):
    """How pictures become arrays: `data.reader`, which is stored with the model."""

    image_size: Annotated[tuple[Side, Side], Field(strict=False)]
    colour: Literal["grey", "rgb"]
    resize: Literal["pad", "crop", "stretch"]
    background: Literal["black", "white"]
    prepare: Literal["none", "digit"]
    max_pixels: Count

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image: (height, width) or (height, width, 3)."""
        return self.image_size if self.colour == "grey" else (*self.image_size, 3)


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings as (dotted key, value); a list counts as one value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def value_at(values: Any, key: str) -> Any:
    """Return the value under a dotted key of nested mappings."""
    for part in key.split("."):
        values = values[part]
    return values
