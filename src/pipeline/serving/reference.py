"""Find the model to use: the workspace's, a file, a run, or a version in MLflow's registry."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.workspace import Workspace, copy_file
from pipeline.errors import PipelineError

Part = Literal["model.onnx", "model.keras"]
# The test accuracy, and the ends of its 95 % interval.
Accuracy = tuple[float, float, float]


@dataclass(frozen=True)
class Resolved:
    """A model file, and what is known about the model from elsewhere."""

    path: Path  # of the model file, usually the ONNX file
    name: str
    version: str | None = None  # in the registry
    test_accuracy: Accuracy | None = None
    card: Path | None = None  # Markdown
    model_id: str | None = None  # of its files in MLflow


def resolve(
    ref: str | None, workspace: Workspace, part: Part = "model.onnx", *, with_card: bool = False
) -> Resolved:
    """Find the model that `ref` names, and download it if it is in MLflow.

    The model is a file; the name or id of a run in MLflow, or the beginning of either; NAME@ALIAS or
    NAME/VERSION in MLflow's registry; or, if `ref` is None, the workspace's. `with_card` downloads the card,
    with its pictures, too.

    Raises:
        PipelineError: If there is no such model, or MLflow can't be reached.
    """
    if ref is None:
        return _from_workspace(workspace, workspace.onnx if part == "model.onnx" else workspace.model)
    if not ref.strip():
        raise PipelineError("The name of the model is empty.")
    path = Path(ref)
    if path.suffix == ".keras":
        raise PipelineError(f"{ref} is a Keras model: name the ONNX file that training writes next to it.")
    if path.is_file():
        return Resolved(path, path.stem)
    if path.suffix == ".onnx":
        raise PipelineError(f"There is no model file {ref}.")
    return _from_mlflow(ref, workspace, part, with_card)


def _from_workspace(workspace: Workspace, path: Path) -> Resolved:
    if not path.is_file():
        raise PipelineError(
            f"There is no model at {path}: `dvc repro` trains one; --model NAME uses the model of any run."
        )
    try:
        run = json.loads(workspace.run.read_text(encoding="utf-8"))
        name, weights = run["name"], run["result"]["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return Resolved(path, "model")
    metrics: Any = None
    with suppress(OSError, ValueError):
        metrics = json.loads(workspace.metrics.read_text(encoding="utf-8"))
    if not isinstance(metrics, dict) or metrics.get("weights_sha256") != weights:
        # The model has not been evaluated yet: the reports are damaged, or about the previous one.
        return Resolved(path, name)
    card = workspace.model_card
    return Resolved(path, name, None, _accuracy(metrics), card if card.is_file() else None)


def _from_mlflow(ref: str, workspace: Workspace, part: Part, with_card: bool) -> Resolved:
    from pipeline.config.params import read_params
    from pipeline.results.download import download_card, find_model

    tracking = read_params(workspace.params).tracking
    found = find_model(ref, tracking, workspace)
    return Resolved(
        _download(found.location, found.model_id, workspace, part),
        found.name,
        found.version,
        _accuracy(found.metrics),
        download_card(found, tracking, workspace) if with_card else None,
        found.model_id,
    )


def _accuracy(metrics: Mapping[str, Any]) -> Accuracy | None:
    match [metrics.get(f"test_accuracy{end}") for end in ("", "_low", "_high")]:
        case [float(accuracy), float(low), float(high)]:
            return accuracy, low, high
    return None


def _download(location: str, model_id: str, workspace: Workspace, part: Part) -> Path:
    """Download a file of a logged model, once, since it never changes."""
    import tempfile

    from mlflow.artifacts import download_artifacts

    path = workspace.scratch / "models" / model_id / part
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                fetched = download_artifacts(artifact_uri=f"{location}/data/{part}", dst_path=folder)
            except Exception as error:
                reason = " ".join(str(error).split())
                raise PipelineError(
                    f"MLflow has no {part} of the model {model_id} ({reason}): it is damaged, or of an older "
                    "version. Train it again."
                ) from None
            copy_file(Path(fetched), path)
    return path
