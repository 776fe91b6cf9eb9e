"""The application with all verbs."""

from pipeline.cli.app import app as app

# Each module registers its verbs; `pipeline --help` lists them in this order.
# isort: off
from pipeline.cli import data, training, runs, models, promotion, storage  # noqa: F401
# isort: on
