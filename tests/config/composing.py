"""The configuration folder of this repository, and a way to compose a broken copy of it."""

from pathlib import Path

import pytest

from pipeline.config.compose import compose
from pipeline.errors import PipelineError

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"


def refused(conf, *overrides):
    """Return the message with which composing `conf` with these overrides is refused."""
    with pytest.raises(PipelineError) as error:
        compose(conf, overrides)
    return str(error.value)


def rewrite(path, old, new):
    """Replace the only occurrence of `old` in a file."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
