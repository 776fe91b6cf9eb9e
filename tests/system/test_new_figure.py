"""As docs/architecture.md says, a new figure is one file, and nothing is trained again."""

import pytest
from clones import executed

FIGURE = '''
"""How sure the model is."""

from matplotlib.figure import Figure

from pipeline.plots.evaluated import Evaluated
from pipeline.plots.style import titled


def draw(evaluated: Evaluated) -> Figure:
    """A histogram of the confidences."""
    figure = titled(4.0, "Confidence", f"{len(evaluated.images):,} test images")
    figure.subplots().hist(evaluated.predictions.confidence)
    return figure
'''


@pytest.mark.slow
def test_a_figure_is_one_file_and_nothing_is_trained_again(smoke):
    before = smoke.digests()
    figures = {path.name for path in smoke.workspace.figures.iterdir()}
    (smoke.root / "src" / "pipeline" / "plots" / "evaluation" / "confidence.py").write_text(FIGURE)
    assert executed(smoke.repro()) == ["evaluate"]
    assert {path.name for path in smoke.workspace.figures.iterdir()} == figures | {"confidence.png"}
    after = smoke.digests()
    assert {path for path in after if after[path] != before[path]} == {"reports/figures"}
