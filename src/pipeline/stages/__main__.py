"""Run one stage in the current directory: `python -m pipeline.stages NAME`, the command in dvc.yaml.

This module surrounds the stages: it reads their configuration, and reports their failures and runs.
"""

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.computed import note_computed
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError, exit_if_terminated, exit_on_error
from pipeline.processes.context import TrialContext
from pipeline.processes.handover import hand_over
from pipeline.processes.system import die_with_dvc
from pipeline.processes.temporary import own_temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.artifacts.history import Epoch
    from pipeline.config.schema import Config

STAGES = ("compose", "fetch", "preprocess", "train", "evaluate")


def main() -> None:
    """Parse the name of the stage and run it, here or in the worker of a sweep."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.stages", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args().stage
    die_with_dvc()
    context = TrialContext.current()
    if context.worker:
        sys.exit(hand_over(context, stage))
    with exit_on_error(), own_temporary_folder():
        run(stage, Workspace(Path.cwd()))


def run(stage: str, workspace: Workspace) -> None:
    """Run `stage` in `workspace` with the part of the config that dvc.yaml declares for it.

    Raises:
        PipelineError: If the stage fails or its configuration is invalid.
    """
    # These imports are not needed to hand a stage over.
    from pipeline.config.params import read_params, view
    from pipeline.config.plain_yaml import load_yaml
    from pipeline.environment import import_keras, prepare_environment, quiet_tensorflow
    from pipeline.stages.code import StageCode

    prepare_environment(workspace.scratch / "home")
    config = None if stage == "compose" else read_params(workspace.params)
    with quiet_tensorflow():
        if config and stage == "train":
            import_keras(config.train.target)
        module = importlib.import_module(f"pipeline.stages.{stage}")
    if config is None:
        module.run(workspace, os.environ.get("DVC_EXP_NAME"))
        note_computed(workspace, stage)
        # Importing this takes longer than the stage itself.
        if any((workspace.scratch / "runs").glob("*/state.json")):
            from pipeline.tracking import session as tracking

            tracking.close_dead(read_params(workspace.params).tracking, workspace)
        return
    definition = load_yaml(workspace.dvc_yaml.read_text(encoding="utf-8"))
    declared = definition["stages"][stage]
    part = view(config, declared["params"])
    _refuse_unwritable(workspace)
    code = StageCode(declared, config)
    if stage in ("train", "evaluate"):
        from pipeline.tracking import session as tracking

        if stage == "train":
            _refuse_early_stopping_without_validation(config, workspace)
            pruning_callback = _pruning_callback()
            with tracking.training(config, workspace, code.files) as run:

                def on_epoch(epoch: "Epoch") -> None:
                    exit_if_terminated()
                    code.refuse_edits_soon()
                    run.log_epoch(epoch)
                    pruning_callback(epoch)

                run.finish(module.run(part, workspace, on_epoch, run.named))
        else:
            with tracking.evaluation(config, workspace):
                module.run(part, workspace)
    else:
        module.run(part, workspace)
    code.refuse_edits()
    note_computed(workspace, stage)


def _pruning_callback() -> "Callable[[Epoch], None]":
    """Return a callback that is called after each epoch and raises an exception to stop the training."""
    if pruning := TrialContext.current().pruning:
        # Importing Optuna takes a second, and only a search that prunes needs it.
        from pipeline.training.pruning import pruning_callback

        return pruning_callback(pruning)
    return lambda epoch: None


def _refuse_early_stopping_without_validation(config: "Config", workspace: Workspace) -> None:
    """Check that there are validation images to stop by, which only the division of the images shows."""
    from pipeline.artifacts.processed import read_training_dataset

    if not config.train.early_stopping.patience:
        return
    if not read_training_dataset(workspace).counts["validation"].total:
        raise PipelineError(
            "train.early_stopping.patience needs validation images, and there are none, since all images are "
            "needed for training: add images, or set train.early_stopping.patience=null."
        )


def _refuse_unwritable(workspace: Workspace) -> None:
    """Check that this stage and the later ones can write their outputs, before hours of training."""
    for output in (workspace.raw, workspace.dataset, workspace.model, workspace.metrics):
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=output.parent):
                pass
        except (FileExistsError, NotADirectoryError):
            raise PipelineError(
                f"{output.parent} has to be a folder, for {output.name}: move the file out of the way."
            ) from None


if __name__ == "__main__":
    main()
