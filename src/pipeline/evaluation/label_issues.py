"""Labels that are probably wrong: the ones that predictions of images not trained on speak against.

Confident learning: Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in
dataset labels", by its authors' package cleanlab, which is an optional dependency.
"""

import numpy as np

from pipeline.evaluation.metrics import Ints, Predictions


def label_issues(predictions: Predictions) -> Ints:
    """The indices of the images whose labels are probably wrong, the least probable label first: int (m,).

    There are none where all labels are of one class: confident learning weighs two or more against
    each other. The schema refuses `evaluate.label_issues` where cleanlab is not installed.
    """
    # Costs a second and a half, pandas included.
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
