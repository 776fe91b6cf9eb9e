"""Occasions in MLflow: each is a tag of its run, which says it in a line, and a JSON file beside."""

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.evaluation_run import EVALUATION_TAG
from pipeline.tracking.mlflow_run import ID_TAG, MlflowRun
from pipeline.tracking.occasion import Occasion
from pipeline.tracking.store import open_store, unreachable

OCCASION_TAG = "pipeline.occasion"


def log_occasion(run: MlflowRun, occasion: Occasion) -> None:
    """List an occasion that ended at its run, once."""
    tag = f"{OCCASION_TAG}.{occasion.id}"
    if occasion.weights_sha256 and (tag not in run.tags or not run.is_intact):
        run.log_bytes(occasion.dump().encode(), "occasions", f"{occasion.id}.json")
        run.set_tags({tag: occasion.summary})


def show_occasion(occasion: Occasion, run: str, tracking: TrackingSection, workspace: Workspace) -> None:
    """List one more occasion of a run in MLflow; it is not created for that.

    Args:
        occasion: has ended.
        run: the pipeline's id of the run.
        tracking: says where MLflow is.
        workspace: the repository's.

    Raises:
        PipelineError: MLflow can't be reached.
    """
    try:
        store = open_store(tracking, workspace)
        if found := store.find({ID_TAG: run}, without=EVALUATION_TAG):
            log_occasion(MlflowRun(store.client, found), occasion)
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(unreachable(error, tracking, workspace)) from error
