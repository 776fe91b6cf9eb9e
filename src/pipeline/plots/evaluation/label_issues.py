"""The images whose labels are probably wrong."""

from matplotlib.figure import Figure

from pipeline.plots.evaluated import Evaluated
from pipeline.plots.gallery import gallery
from pipeline.plots.style import GREY, titled
from pipeline.plots.text import accuracy_text


def draw(evaluated: Evaluated) -> Figure | None:
    """Draw at most `evaluate.label_issues` images; return None if that is 0."""
    predictions, issues = evaluated.predictions, evaluated.label_issues
    if issues is None:
        return None
    if not len(issues):
        figure = titled(2.4, "Label issues", "No label looks wrong")
        figure.text(0.5, 0.4, "There are no label issues to show.", ha="center", color=GREY, size=13)
        return figure
    shown = issues[: evaluated.settings.label_issues]
    title = f"The {len(shown):,} least probable of {len(issues):,} labels that look wrong"
    if len(shown) == len(issues):
        title = (
            f"All {len(issues):,} labels that look wrong"
            if len(issues) > 1
            else "The only label that looks wrong"
        )
    given = predictions.probabilities_of_labels
    subtitle = f"label → suggested class, probability of the label; {accuracy_text(predictions)}"
    return gallery(evaluated, shown, [f"{100 * given[i]:.1f} %" for i in shown], title, subtitle)
