"""Labels that are probably wrong: the ones that predictions of images not trained on speak against.

Confident learning: Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in
dataset labels", by its authors' package cleanlab, which is an optional dependency.
"""

from pipeline.errors import PipelineError
from pipeline.evaluation.metrics import Ints, Predictions


def doubtful_labels(predictions: Predictions) -> Ints:
    """The indices of the images whose labels are probably wrong, the most doubtful first: int (m,).

    Raises:
        PipelineError: cleanlab is not installed, or all labels are of one class.
    """
    try:
        # Costs a second and a half, pandas included.
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise PipelineError(
            "evaluate.doubtful_labels needs cleanlab, which is not installed: `make setup EXTRAS=labels` "
            "installs it, or set the option to 0."
        ) from None
    try:
        ranked: Ints = find_label_issues(
            predictions.labels,
            predictions.probabilities,
            filter_by="confident_learning",
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    except ValueError as error:
        raise PipelineError(f"evaluate.doubtful_labels can't be had: {error}") from None
    return ranked
