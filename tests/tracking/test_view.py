"""The view of the runs that MLflow opens with."""

from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from pipeline.tracking.view import write_view


@pytest.mark.parametrize("other_was_faster", [True, False])
def test_a_tag_that_another_process_sets_at_the_same_time_is_no_failure(other_was_faster):
    stored = {}

    def refuse(experiment, key, value):
        if other_was_faster:
            stored[key] = value
        raise MlflowException("UNIQUE constraint failed: experiment_tags.key")

    answers = SimpleNamespace(
        set_experiment_tag=refuse, get_experiment=lambda experiment: SimpleNamespace(tags=stored)
    )
    experiment = SimpleNamespace(experiment_id="1", tags={})
    if other_was_faster:
        write_view(answers, experiment)
    else:
        with pytest.raises(MlflowException, match="UNIQUE"):
            write_view(answers, experiment)
