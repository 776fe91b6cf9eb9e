"""Read YAML that people or crashes may have damaged: whatever is wrong with it is a YAMLError."""

from typing import Any

import yaml


def load_yaml(text: str | bytes) -> Any:
    """Return the plain values of a YAML document.

    Raises:
        yaml.YAMLError: If it is malformed. For a date or a number that does not exist, such as 2024-13-45 or
            0x_, PyYAML itself raises a ValueError.
    """
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error
