"""Show occasions in MLflow: each is a tag of its run with a one-line summary, and a JSON artifact."""

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.evaluation_run import EVALUATION_TAG
from pipeline.tracking.mlflow_run import ID_TAG, MlflowRun
from pipeline.tracking.occasion import Occasion
from pipeline.tracking.store import open_store, unreachable

OCCASION_TAG = "pipeline.occasion"


def log_occasion(run: MlflowRun, occasion: Occasion) -> None:
    """Add an occasion that has ended to its run in MLflow, unless it is already there."""
    tag = f"{OCCASION_TAG}.{occasion.id}"
    if occasion.weights_sha256 and (tag not in run.tags or not run.is_intact):
        run.log_bytes(occasion.dump().encode(), "occasions", f"{occasion.id}.json")
        run.set_tags({tag: occasion.summary})


def show_occasion(occasion: Occasion, run: str, tracking: TrackingSection, workspace: Workspace) -> None:
    """Add one more occasion to a run in MLflow; do nothing if MLflow does not have the run.

    Args:
        occasion: An occasion that has ended.
        run: The pipeline's id of the run.
        tracking: The settings that say where MLflow is.
        workspace: The workspace of the repository.

    Raises:
        PipelineError: If MLflow can't be reached.
    """
    try:
        store = open_store(tracking, workspace)
        if found := store.find({ID_TAG: run}, without=EVALUATION_TAG):
            log_occasion(MlflowRun(store.client, found), occasion)
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(unreachable(error, tracking, workspace)) from error
