"""Train, evaluate and track an image classifier: Hydra configures, DVC caches, MLflow shows.

For notebooks and scripts; docs/api.md has examples. Everything else in this package may change.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import PipelineError, Run, compose, load_run, run, run_stage

__all__ = ["PipelineError", "Run", "compose", "load_run", "run", "run_stage"]


def __getattr__(name: str) -> Any:
    # Imported when it is used: `import pipeline` comes before every stage.
    if name in __all__:
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
