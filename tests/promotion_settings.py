"""Settings of the promotion for tests, independent of conf/promotion, and facts about a model."""

from pipeline.config.schema import PromotionSection
from pipeline.registry.gate import Facts

SETTINGS = PromotionSection(
    require="not_worse",
    margin=0.01,
    level=0.05,
    max_calibration_rise=0.02,
    max_recall_fall=0.05,
    max_slice_fall=0.05,
    slices={},
    code="explained",
    reproduced=False,
    max_megabytes=100.0,
    max_milliseconds=50.0,
)
# What is known about a model in which nothing is wrong.
FACTS = Facts(
    status="FINISHED",
    commit="1a2b3c4d5e6f",
    is_in_git=True,
    dirty="false",
    has_patch=False,
    files=9,
    problems=(),
    occasions=1,
    megabytes=0.4,
    milliseconds=0.1,
)
