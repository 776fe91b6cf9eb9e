"""The versions of a registered model in MLflow; each trained model has at most one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.results.lookup import MAX_DIGITS
from pipeline.tracking.logged_model import MODEL_TAG
from pipeline.tracking.mlflow_run import ID_TAG, NAME_TAG, unless_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.registry.journal import Entry

MODEL_FILE_TAG = "pipeline.model_sha256"


def is_of(version: "ModelVersion", model: "LoggedModel | None") -> bool:
    """Return whether the version is that logged model, and not one that was deleted since."""
    return model is not None and version.source == f"models:/{model.model_id}"


@dataclass(frozen=True)
class Versions:
    """The versions of the registered model `name`."""

    client: "MlflowClient"
    name: str

    def get(self, number: str) -> "ModelVersion | None":
        """Return the version with this number, or None if there is none."""
        if len(number) > MAX_DIGITS:
            return None
        return unless_missing(lambda: self.client.get_model_version(self.name, number))

    def at(self, alias: str) -> "ModelVersion | None":
        """Return the version that has the alias, or None if none has it."""
        return unless_missing(lambda: self.client.get_model_version_by_alias(self.name, alias))

    def of(self, entry: "Entry") -> "ModelVersion | None":
        """Return the version of a journal's entry, or None if MLflow lacks it."""
        found = self.get(entry.version)
        # In a new database, another model may have the same number.
        is_it = found and found.tags.get(MODEL_FILE_TAG, "") == entry.model_sha256
        return found if is_it else None

    def all(self) -> "list[ModelVersion]":
        """Return all versions, the oldest first."""
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(found, key=lambda version: int(version.version))

    def register(self, run: "Run", model: "LoggedModel", description: str) -> "ModelVersion":
        """Return the version that is `model`, of `run`; create it if there is none.

        The registered model must exist: `Journal.ensure_run` creates it.
        """
        for version in self.all():
            if is_of(version, model):
                return version
        keys = (ID_TAG, NAME_TAG, MODEL_TAG, MODEL_FILE_TAG)
        return self.client.create_model_version(
            self.name,
            source=f"models:/{model.model_id}",
            run_id=run.info.run_id,
            tags={key: run.data.tags[key] for key in keys if key in run.data.tags},
            description=description,
            model_id=model.model_id,
        )

    def set_alias(self, alias: str, number: str) -> None:
        """Give the alias to a version, unless it already has it."""
        version = self.at(alias)
        if version is None or str(version.version) != number:
            self.client.set_registered_model_alias(self.name, alias, number)
