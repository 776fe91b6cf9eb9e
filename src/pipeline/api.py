"""Functions for notebooks and scripts."""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.workspace import Workspace, here
from pipeline.config import compose as composition
from pipeline.config.schema import Config
from pipeline.errors import PipelineError as PipelineError

if TYPE_CHECKING:
    import keras

Stage = Literal["fetch", "preprocess", "train", "evaluate"]


@dataclass(frozen=True)
class Run:
    """A trained and evaluated run of the pipeline, as recorded in MLflow.

    As the last value of a cell, it is shown in a few lines, without its params and predictions.

    Args:
        name: The run's name.
        id: The run's id in MLflow.
        params: The configuration: dotted keys, and values as text.
        metrics: The metrics of the epoch whose weights the model has (`val_accuracy` ...), and those of the
            evaluation (`test_accuracy` ...).
        predictions: The label and the predicted class of each test image.
    """

    name: str
    id: str
    params: Mapping[str, str] = field(repr=False)
    metrics: Mapping[str, float]
    predictions: tuple[tuple[str, str], ...] = field(repr=False)

    def model(self) -> "keras.Model":
        """Download the trained model from MLflow and load it.

        Returns:
            A model that maps uint8 images (batch, height, width) or (batch, height, width, channels) to
            float32 probabilities (batch, classes).

        Raises:
            PipelineError: If MLflow has no model of this run, or it cannot be read.
        """
        from pipeline.environment import quiet_tensorflow, use_threads
        from pipeline.results.download import download_model

        config = compose()
        with quiet_tensorflow():
            from pipeline.artifacts.model_file import load
        # The results are bit for bit those of the evaluation, unless this process already uses another number
        # of threads.
        with suppress(PipelineError):
            use_threads(config.train.threads)
        with tempfile.TemporaryDirectory() as folder:
            return load(download_model(self.id, config.tracking, here(), Path(folder)))


def compose(*overrides: str) -> Config:
    """Compose the configuration of conf/ with `overrides` as on the command line, such as `"model=cnn"`.

    Raises:
        PipelineError: If an override or a value is invalid.
    """
    return composition.compose(here().root / "conf", overrides)


def run(*overrides: str) -> Run:
    """Run the pipeline with `overrides`, as `python -m pipeline` does; what was trained before is restored.

    Raises:
        PipelineError: If an override is invalid, a stage fails, or MLflow cannot be reached.
    """
    from pipeline.trials.trial import run_trial

    with run_trial(compose(*overrides), here()) as trial:
        identity = json.loads(trial.run.read_text(encoding="utf-8"))["id"]
    return load_run(identity)


def run_stage(
    stage: Stage,
    config: Config,
    folder: str | PathLike[str],
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> None:
    """Run one stage in this process, without DVC's cache and without MLflow.

    Args:
        stage: The name of the stage, which reads the files that the stages before it wrote.
        config: The configuration, from `compose`.
        folder: The folder in which the stages read and write their files; not a clone of this repository.
        on_epoch: Called by `train` after each epoch.

    Raises:
        PipelineError: If the stage fails or does not exist, or if `folder` is a clone, in which DVC runs the
            stages.
    """
    if stage not in get_args(Stage):
        raise PipelineError(f"There is no stage {stage!r}: the stages are {', '.join(get_args(Stage))}.")
    if not isinstance(config, Config):
        raise PipelineError(f"{config!r} is not a configuration: pass what `compose` returns.")
    if not isinstance(folder, str | PathLike):
        raise PipelineError(f"{folder!r} is not a folder: pass its path.")
    if not callable(on_epoch):
        raise PipelineError(f"{on_epoch!r} is not a function: on_epoch is called with each epoch's metrics.")
    workspace = Workspace(Path(folder).absolute())
    if workspace.dvc_yaml.exists():
        raise PipelineError(f"{workspace.root} has a dvc.yaml: run its stages with `dvc repro`.")
    _refuse_wrong_order(stage, workspace)
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{workspace.root} can't be used as a folder: {error.strerror}.") from None
    from pipeline.environment import import_keras, quiet_tensorflow

    with quiet_tensorflow():
        if stage == "train":
            import_keras(config.train.target)
        module = importlib.import_module(f"pipeline.stages.{stage}")
    # TensorFlow rewrites functions and would leave their bytecode in the system's temporary folder.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        if stage == "train":
            from pipeline.artifacts.onnx_file import RunName
            from pipeline.tracking.identity import complete, identify, write_run

            # The stage evaluate identifies the model by this file. The run's id does not cover the code.
            run = identify(config, workspace, {})
            named = RunName(id=run["id"], name=run["name"])
            trained = module.run(config, workspace, on_epoch, named)
            write_run(workspace.run, complete(run, trained, workspace.model))
        else:
            module.run(config, workspace)
    finally:
        sys.dont_write_bytecode = before


def _refuse_wrong_order(stage: Stage, workspace: Workspace) -> None:
    stages = get_args(Stage)
    written = (workspace.raw, workspace.dataset, workspace.run)
    for earlier, path in zip(stages[: stages.index(stage)], written, strict=False):
        if not path.exists():
            lacking = path.relative_to(workspace.root)
            raise PipelineError(
                f"{workspace.root} has no {lacking}, which the stage {earlier} writes: run "
                f"the stages in the order {', '.join(stages)}."
            )


def load_run(name: str) -> Run:
    """Load a run from MLflow by its name or id, or by the beginning of either.

    Raises:
        PipelineError: If MLflow cannot be reached, or if not exactly one evaluated run has that name.
    """
    from pipeline.results.lookup import look_up

    if not isinstance(name, str):
        raise PipelineError(f"{name!r} is not the name of a run: pass a text, such as 'smoke-2c6f27'.")
    runs = look_up([name], compose().tracking, here())
    if len(runs) > 1:
        trials = ", ".join(run.name for run in runs)
        raise PipelineError(f"{name!r} is a sweep: name one of its trials, such as {trials}.")
    [found] = runs
    return Run(found.name, found.id, found.params, found.metrics, found.predictions)
