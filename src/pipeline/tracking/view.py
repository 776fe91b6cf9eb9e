"""Save the view that MLflow opens for an experiment: the results of each run and how the runs differ."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW = "results"  # the key of the view, which ends the name of its tag
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_COLUMNS = (
    "attributes.`Duration`",
    "metrics.`test_accuracy`",
    "metrics.`best_val_accuracy`",
    "params.`model.name`",
    "params.`train.epochs`",
    "params.`train.learning_rate`",
    "params.`seed`",
)
# The charts that the view shows, by the names of their metrics; the run of a sweep has one of them.
_CHARTS = "^(train|val)_(accuracy|loss)$|^(test|best_val)_accuracy$"


def write_view(client: "MlflowClient", experiment: "Experiment") -> None:
    """Save the view as tags of the experiment, unless it already has them.

    If the server does not allow this user to tag experiments, nothing is changed.

    Raises:
        MlflowException: If the store can't be reached.
    """
    from mlflow.exceptions import MlflowException

    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": _COLUMNS,
        "columnOrder": _COLUMNS,
        "chartsSearchFilter": _CHARTS,
    }
    tags = {
        # Without this tag, the page opens on traces of language models.
        "mlflow.experimentKind": "custom_model_development",
        VIEW_TAG: json.dumps(state),
    }
    for key, value in tags.items():
        if experiment.tags.get(key) != value:
            try:
                client.set_experiment_tag(experiment.experiment_id, key, value)
            except MlflowException as error:
                if error.error_code == "PERMISSION_DENIED":
                    continue
                # Another process may have set the tag at the same time, which MLflow refuses.
                if client.get_experiment(experiment.experiment_id).tags.get(key) != value:
                    raise
