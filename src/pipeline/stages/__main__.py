"""Run one stage in the current directory: `python -m pipeline.stages NAME`, the command in dvc.yaml.

This is the boundary around the stages: configuration in, failures and runs out.
"""

import argparse
import ctypes
import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import read_params, view
from pipeline.console import quiet_tensorflow
from pipeline.errors import sentences
from pipeline.workspace import Workspace

STAGES = ("compose", "fetch", "preprocess", "train", "evaluate")


def main() -> None:
    """Parse the stage's name and run it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.stages", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args().stage
    with sentences():
        die_with_parent()
        run(stage, Workspace(Path.cwd()))


def run(stage: str, workspace: Workspace) -> None:
    """Run `stage` in `workspace` with the part of the config that dvc.yaml declares for it.

    Raises:
        PipelineError: the stage, or its configuration, was refused.
    """
    with quiet_tensorflow():
        module = importlib.import_module(f"pipeline.stages.{stage}")
    if stage == "compose":
        module.run(workspace, os.environ.get("DVC_EXP_NAME"))
        return
    config = read_params(workspace.params)
    declared = _declaration(workspace, stage)
    part = view(config, declared["params"])
    _refuse_unwritable(workspace, declared)
    if stage in ("train", "evaluate"):
        from pipeline import tracking

        if stage == "train":
            with tracking.training(config, workspace) as run:
                run.finish(module.run(part, workspace, run.log_epoch))
        else:
            with tracking.evaluation(config, workspace):
                module.run(part, workspace)
    else:
        module.run(part, workspace)


def _declaration(workspace: Workspace, stage: str) -> dict[str, list[Any]]:
    """What dvc.yaml says of a stage."""
    definition = yaml.load(workspace.dvc_yaml.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    declared: dict[str, list[Any]] = definition["stages"][stage]
    return declared


def _refuse_unwritable(workspace: Workspace, declared: dict[str, list[Any]]) -> None:
    """Try now whether the outputs can be written, not after hours of training."""
    outputs = [out for kind in ("outs", "metrics", "plots") for out in declared.get(kind, [])]
    for folder in {(workspace.root / out).parent for out in outputs}:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def die_with_parent() -> None:
    """Have the kernel end this process when DVC is killed, lest it write late over a rerun's output."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


if __name__ == "__main__":
    main()
