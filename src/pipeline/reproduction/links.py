"""Compare a run with its rebuilt run link by link: each link is the same, or the difference is described."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.section import leaves
from pipeline.reproduction.recorded import Recorded
from pipeline.tracking.lineage import PACKAGES

State = Literal["same", "within tolerance", "different", "damaged", "not recorded"]
# A run is reproduced only if these inputs are the same; packages and processor may differ.
INPUTS = ("code", "configuration", "data")
RESULTS = ("weights", "predictions", "metrics")


@dataclass(frozen=True)
class Link:
    """One thing that the run and its rebuilt run have in common, and how it compares."""

    name: str
    state: State
    detail: str = ""


def compare(old: Recorded, new: Recorded, tolerance: float) -> list[Link]:
    """Return the links from the code to the metrics, in the order in which one depends on the other.

    The tolerance for probabilities and metrics is relative for metrics larger than one.
    """
    return [
        _of_digest("code", old.run["code"], new.run["code"]),
        _of_values("configuration", dict(leaves(old.run["config"])), dict(leaves(new.run["config"]))),
        _of_values("data", _data(old), _data(new)),
        _of_values("packages", _packages(old), _packages(new)),
        _of_values("processor", _processor(old), _processor(new)),
        _weights(old, new),
        _predictions(old, new, tolerance),
        _metrics(old.metrics, new.metrics, tolerance),
    ]


def _of_digest(name: str, old: str, new: str) -> Link:
    if old == new:
        return Link(name, "same", old[:12])
    return Link(name, "different", f"{old[:12]}, rebuilt {new[:12]}")


def _of_values(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Link:
    if not old:
        return Link(name, "not recorded")
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not differ:
        return Link(name, "same")
    shown = "; ".join(f"{key} {old.get(key, 'none')}, rebuilt {new.get(key, 'none')}" for key in differ[:3])
    return Link(name, "different", f"{shown}; {len(differ) - 3} more" if len(differ) > 3 else shown)


def _data(side: Recorded) -> dict[str, Any]:
    test = {"splits.test.sha256": side.test} if side.test else {}
    return {
        key: value[:12] if key.endswith("sha256") else value
        for key, value in (dict(leaves(side.run["data"])) | test).items()
    }


def _packages(side: Recorded) -> dict[str, str]:
    names = ("python", *PACKAGES, "jax", "jaxlib")
    return {name: side.tags[f"package.{name}"] for name in names if f"package.{name}" in side.tags}


def _processor(side: Recorded) -> dict[str, str]:
    """Return the processor and, with JAX, the device by name: a GPU, or the processor again."""
    return {
        name: side.tags[tag] for name, tag in (("", "processor"), ("device", "device")) if tag in side.tags
    }


def _weights(old: Recorded, new: Recorded) -> Link:
    """Compare the digests of the weights; the recorded model file must be the one that was trained."""
    recorded = old.run["result"]
    if old.files.model.exists() and sha256(old.files.model) != recorded["model_sha256"]:
        return Link("weights", "damaged", "the run's model file was changed since it was trained")
    return _of_digest("weights", recorded["weights_sha256"], new.run["result"]["weights_sha256"])


def _predictions(old: Recorded, new: Recorded, tolerance: float) -> Link:
    if not old.files.probabilities.exists():
        return Link("predictions", "not recorded")
    if sha256(old.files.probabilities) == sha256(new.files.probabilities):
        return Link("predictions", "same")
    before, after = _probabilities(old.files), _probabilities(new.files)
    if before is None or after is None or before.shape != after.shape:
        return Link("predictions", "different", "of other images or classes")
    apart = float(np.abs(before - after).max())
    changed = int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
    detail = f"probabilities up to {apart:.2g} apart, {changed:,} of {len(before):,} answers differ"
    return Link("predictions", "within tolerance" if apart <= tolerance else "different", detail)


def _probabilities(files: Workspace) -> NDArray[np.float64] | None:
    try:
        return np.asarray(np.load(files.probabilities, allow_pickle=False), np.float64)
    except (ValueError, OSError, EOFError):
        return None


def _metrics(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float) -> Link:
    differ = list(_apart(old, new))
    if not differ:
        return Link("metrics", "same")
    name, apart = max(differ, key=lambda one: one[1])
    detail = f"{len(differ)} of {len(old)}, {name} the most: {old.get(name)}, rebuilt {new.get(name)}"
    return Link("metrics", "within tolerance" if apart <= tolerance else "different", detail)


def _apart(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the metrics that differ, with their distance: relative for values larger than one."""
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        # The digest of the weights has its own link.
        if one == other or name == "weights_sha256":
            continue
        # A damaged metrics.json may have anything in place of a number.
        if isinstance(one, int | float) and isinstance(other, int | float):
            yield name, abs(one - other) / max(1.0, abs(one))
        else:
            yield name, float("inf")
