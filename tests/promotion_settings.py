"""Promotion settings for tests, independent of the current conf/promotion."""

from pipeline.config.schema import PromotionSection

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
