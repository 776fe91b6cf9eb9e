"""The package's functions for notebooks and scripts."""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
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
    """A run of the pipeline that was trained and evaluated, as MLflow has it.

    Args:
        name: of the run.
        id: MLflow's.
        params: the configuration, by dotted keys, as text.
        metrics: of the epoch whose weights the model has (`val_accuracy` ...), and of the evaluation
            (`test_accuracy` ...).
        predictions: for each test image, its label and the class that was predicted.
    """

    name: str
    id: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    predictions: tuple[tuple[str, str], ...]

    def model(self) -> "keras.Model":
        """The trained model: from uint8 images (batch, height, width) or (batch, height, width, channels)
        to float32 probabilities (batch, classes).

        Raises:
            PipelineError: MLflow has no model of this run, or it can't be read.
        """
        from pipeline.environment import quiet_tensorflow, use_threads
        from pipeline.results.download import download_model

        config = compose()
        with quiet_tensorflow():
            from pipeline.artifacts.model_file import load
        # As it was evaluated, to the last bit, unless this process computes with other threads already.
        with suppress(PipelineError):
            use_threads(config.train.threads)
        with tempfile.TemporaryDirectory() as folder:
            return load(download_model(self.id, config.tracking, here(), Path(folder)))


def compose(*overrides: str) -> Config:
    """The configuration of conf/ with `overrides` as on the command line, such as `"model=cnn"`.

    Raises:
        PipelineError: an override or a value is refused.
    """
    return composition.compose(here().root / "conf", overrides)


def run(*overrides: str) -> Run:
    """Run the pipeline with `overrides`, as `python -m pipeline` does; what was ever trained is restored.

    Raises:
        PipelineError: an override is refused, a stage failed, or MLflow can't be reached.
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
        stage: it reads what the stages before it wrote.
        config: from `compose`.
        folder: where the stages find and leave their files; any folder but a clone of this repository.
        on_epoch: called by `train` after each epoch.

    Raises:
        PipelineError: the stage failed, or there is no such stage, or `folder` is a clone, whose files are
            DVC's to write.
    """
    if stage not in get_args(Stage):
        raise PipelineError(
            f"There is no stage {stage!r} to run: the stages are {', '.join(get_args(Stage))}."
        )
    workspace = Workspace(Path(folder).absolute())
    if workspace.dvc_yaml.exists():
        raise PipelineError(f"{workspace.root} has a dvc.yaml: its stages are run by `dvc repro`.")
    from pipeline.environment import import_keras, quiet_tensorflow

    with quiet_tensorflow():
        if stage == "train":
            import_keras(config.train.target)
        module = importlib.import_module(f"pipeline.stages.{stage}")
    # TensorFlow rewrites functions, and leaves their bytecode among the system's temporary files.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        if stage == "train":
            from pipeline.artifacts.onnx_file import RunName
            from pipeline.tracking.identity import complete, identify, write_run

            # By it evaluate knows the model; the code is not part of such a run's id.
            run = identify(config, workspace, {})
            named = RunName(id=run["id"], name=run["name"])
            trained = module.run(config, workspace, on_epoch, named)
            write_run(workspace.run, complete(run, trained, workspace.model))
        else:
            module.run(config, workspace)
    finally:
        sys.dont_write_bytecode = before


def load_run(name: str) -> Run:
    """A run by its name or its id in MLflow, or the beginning of either.

    Raises:
        PipelineError: MLflow can't be reached, or no evaluated run, or more than one, has that name.
    """
    from pipeline.results.lookup import look_up

    runs = look_up([name], compose().tracking, here())
    if len(runs) > 1:
        trials = ", ".join(run.name for run in runs)
        raise PipelineError(f"{name!r} is a sweep: name one of its trials, such as {trials}.")
    [found] = runs
    return Run(found.name, found.id, found.params, found.metrics, found.predictions)
