"""Find labels that are probably wrong, by the predictions for images that were not trained on.

Confident learning: Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in
dataset labels", by its authors' package cleanlab, which is an optional dependency.
"""

import numpy as np

from pipeline.evaluation.metrics import Ints, Predictions


def label_issues(predictions: Predictions) -> Ints:
    """Return the indices of images whose labels are probably wrong, the least probable label first: int (m,).

    There are none if all labels are of one class, since confident learning compares two or more classes. The
    schema refuses `evaluate.label_issues` if cleanlab is not installed.
    """
    # This import takes a second and a half, including pandas.
    from cleanlab.filter import find_label_issues

    if len(np.unique(predictions.labels)) < 2:
        return np.array([], np.int64)
    ranked: Ints = find_label_issues(
        predictions.labels,
        predictions.probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return ranked
