"""The view of an experiment that MLflow's page opens on: what each run reached and how it differs."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_VIEW = "results"  # its key
_COLUMNS = (
    "attributes.`Duration`",
    "metrics.`test_accuracy`",
    "metrics.`best_val_accuracy`",
    "params.`model.name`",
    "params.`train.epochs`",
    "params.`train.learning_rate`",
    "params.`seed`",
)
# Which charts it shows; a sweep alone has one of them.
_CHARTS = "^(train|val)_(accuracy|loss)$|^(test|best_val)_accuracy$"


def write_view(client: "MlflowClient", experiment: "Experiment") -> None:
    """Save the view as tags of the experiment, unless it has them.

    Args:
        client: of the store that has the experiment.
        experiment: as that store just gave it.

    Raises:
        MlflowException: the store can't be reached. A server that does not let this user tag experiments
            is left as it is.
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
        # Else the page opens on traces of language models.
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{_VIEW}": json.dumps(state),
    }
    for key, value in tags.items():
        if experiment.tags.get(key) != value:
            try:
                client.set_experiment_tag(experiment.experiment_id, key, value)
            except MlflowException as error:
                if error.error_code != "PERMISSION_DENIED":
                    raise
