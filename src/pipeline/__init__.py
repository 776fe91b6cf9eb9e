"""Train, evaluate and track an image classifier with Hydra, DVC and MLflow.

For notebooks and scripts; docs/api.md has examples. Everything else in this package may change.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import PipelineError, Run, compose, load_run, run, run_stage

__all__ = ["PipelineError", "Run", "compose", "load_run", "run", "run_stage"]


def __getattr__(name: str) -> Any:
    # Imported on first use, since every stage imports this package.
    if name in __all__:
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
