"""The schema of conf/: the names, types and ranges of its values.

All defaults are in conf/, none here. The configuration is frozen; unknown keys, wrong types and values out of
range are rejected with a sentence that names the key.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.registry import options
from pipeline.config.section import (
    Address,
    Count,
    Digest,
    Fraction,
    ModelSection,
    Name,
    Positive,
    ReaderSection,
    Section,
    Seed,
    SourceSection,
)
from pipeline.environment import Target

Classes = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Objective = Literal["val_accuracy", "val_loss", "val_macro_f1", "parameters"]
OBJECTIVES_BY_EPOCH = ("val_accuracy", "val_loss")

if TYPE_CHECKING:
    Model = ModelSection
    Source = SourceSection
else:
    # Any module of the folder, selected by the name in its section.
    Model = Annotated[options("pipeline.models", ModelSection, "name"), Field(discriminator="name")]
    Source = Annotated[options("pipeline.data.sources", SourceSection, "kind"), Field(discriminator="kind")]


class RawDigests(Section):
    train_images: Digest
    train_labels: Digest
    test_images: Digest
    test_labels: Digest


class DataSection(Section):
    name: Name
    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=1000)]
    sources: Annotated[tuple[Source, ...], Field(strict=False, min_length=1)]
    reader: ReaderSection
    validation_images: Annotated[int, Field(ge=0, le=10**9)]
    sha256: RawDigests | None
    timeout: Positive
    deadline: Positive
    retries: Annotated[int, Field(ge=0, le=10)]
    max_bytes: Count

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes has a name twice: reports tell classes apart by name")
        return self


class PreprocessSection(Section):
    validation_fraction: Fraction
    validation_split: Literal["last", "stratified", "hash", "given"]
    duplicates: Literal["keep", "drop"]
    train_fraction: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class AugmentSection(Section):
    shift: Annotated[float, Field(ge=0, le=100)]
    rotation: Annotated[float, Field(ge=0, le=180)]
    scale: Fraction
    shear: Fraction
    elastic: Annotated[float, Field(ge=0, le=100)]
    flip: Annotated[float, Field(ge=0, le=1)]

    @property
    def is_on(self) -> bool:
        """Whether any image is changed at all."""
        return any((self.shift, self.rotation, self.scale, self.shear, self.elastic, self.flip))


class EarlyStopping(Section):
    patience: Count | None
    monitor: Literal["val_loss", "val_accuracy"]
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TrainSection(Section):
    optimizer: Literal["adam", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
    schedule: Literal["constant", "cosine"]
    warmup: Fraction
    weight_decay: Fraction
    beta_2: Fraction
    ema_decay: Fraction
    label_smoothing: Fraction
    class_weight: Literal["none", "balanced"]
    batch_size: Annotated[int, Field(ge=1, le=100_000)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    shuffle: Literal["once", "every_epoch"]
    augment: AugmentSection
    early_stopping: EarlyStopping
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    slice_megabytes: Annotated[int, Field(ge=1, le=100_000)]
    backend: Literal["tensorflow", "jax"]
    device: Literal["auto", "cpu", "gpu"]  # `pipeline.config.compose` resolves auto
    devices: Annotated[int, Field(ge=1, le=64)]
    precision: Literal["float32", "bfloat16"]
    xla: bool | None
    threads: Annotated[int, Field(ge=1, le=1024)]

    @property
    def target(self) -> Target:
        """The backend, devices, threads and precision of the training."""
        return Target(self.backend, self.device, self.devices, self.threads, self.precision)

    @model_validator(mode="after")
    def _only_adamw_decays(self) -> Self:
        if self.optimizer == "adam" and self.weight_decay > 0:
            raise ValueError(
                f"weight_decay needs optimizer adamw: with adam it must be 0.0 (it is {self.weight_decay})"
            )
        return self

    @model_validator(mode="after")
    def _tensorflow_computes_on_the_processor(self) -> Self:
        if self.backend == "tensorflow" and (self.device == "gpu" or self.devices > 1):
            asked = "device is gpu" if self.device == "gpu" else f"devices is {self.devices}"
            raise ValueError(
                f"{asked}, which needs backend jax: with tensorflow, trainings run on one processor here"
            )
        return self

    @model_validator(mode="after")
    def _jax_is_there_and_compiles(self) -> Self:
        if self.backend != "jax":
            return self
        # Refused here, before anything is fetched; otherwise only the training would notice.
        if find_spec("jax") is None:
            raise ValueError(
                "backend is jax, which is not installed: `make setup EXTRAS=jax` installs it for processors, "
                "and docs/gpu.md says how to install it for a GPU"
            )
        if self.xla is False:
            raise ValueError("xla is false, and JAX always compiles with XLA: set it to null")
        if self.batch_size % self.devices:
            raise ValueError(
                f"batch_size is {self.batch_size}, which can't be divided evenly among {self.devices} devices"
            )
        return self


class EvaluateSection(Section):
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    top_losses: Annotated[int, Field(ge=1, le=400)]
    tta_shift: Annotated[int, Field(ge=0, le=100)]
    label_issues: Annotated[int, Field(ge=0, le=400)]
    robustness: Annotated[int, Field(ge=0, le=10**6)]

    @model_validator(mode="after")
    def _label_issues_need_cleanlab(self) -> Self:
        # Refused here, before the training; otherwise only the last stage would notice.
        if self.label_issues and find_spec("cleanlab") is None:
            raise ValueError(
                f"label_issues is {self.label_issues}, which needs cleanlab, and that is not installed: "
                "`make setup EXTRAS=labels` installs it; or set it to 0"
            )
        return self


class TrackingSection(Section):
    uri: Address | None
    experiment: Name
    run_name: Name | None
    timeout: Annotated[float, Field(gt=0, le=60)]


class Modules(Section):
    """Digests of the code of the options in use, from `pipeline.config.modules`."""

    model: Digest
    backend: Digest
    sources: Digest


class Config(Section):
    """The configuration of a trial; its sections are groups of conf/, except `modules`, which is computed."""

    name: Name
    seed: Seed
    data: DataSection
    preprocess: PreprocessSection
    model: Model
    train: TrainSection
    evaluate: EvaluateSection
    tracking: TrackingSection
    modules: Modules

    @model_validator(mode="after")
    def _early_stopping_needs_validation(self) -> Self:
        if self.train.early_stopping.patience and self.preprocess.validation_fraction == 0:
            raise ValueError(
                "train.early_stopping.patience needs validation images: set "
                "preprocess.validation_fraction above 0, or patience to null"
            )
        return self

    @model_validator(mode="after")
    def _smoothing_needs_softmax(self) -> Self:
        if self.train.label_smoothing > 0 and self.model.head == "sigmoid":
            raise ValueError("train.label_smoothing needs model.head softmax, or set it to 0.0")
        return self


class SweepSection(Section):
    on_failure: Literal["continue", "stop"]
    objectives: Annotated[tuple[Objective, ...], Field(strict=False, min_length=1)]
    params: dict[str, str | int | float | bool | None]
    n_trials: Count
    timeout: Positive | None
    sampler: Literal["tpe", "random", "grid"]
    pruner: Literal["none", "median", "hyperband"]
    seed: Seed

    @model_validator(mode="after")
    def _pruning_compares_one_value(self) -> Self:
        if self.pruner != "none" and (
            len(self.objectives) > 1 or self.objectives[0] not in OBJECTIVES_BY_EPOCH
        ):
            raise ValueError(
                f"pruner {self.pruner} needs one objective that is known after each epoch, "
                f"{' or '.join(OBJECTIVES_BY_EPOCH)}: choose one, or set pruner to none"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives has a name twice")
        return self


class PromotionSection(Section):
    require: Literal["not_worse", "better"]
    margin: Annotated[float, Field(gt=0, lt=1)]
    level: Annotated[float, Field(gt=0, lt=0.5)]
    max_calibration_rise: Annotated[float, Field(ge=0, le=1)]
    max_recall_fall: Annotated[float, Field(ge=0, le=1)]
    max_slice_fall: Annotated[float, Field(ge=0, le=1)]
    # Names of classes, or a file with the indices of test images.
    slices: Annotated[dict[Name, Classes | str], Field(max_length=20)]
    code: Literal["clean", "explained", "any"]
    reproduced: bool
    max_megabytes: Positive
    max_milliseconds: Positive


class SweepConfig(Section):
    """The configuration of a sweep as a whole; the other sections are those of its trials."""

    name: Name
    tracking: TrackingSection
    sweep: SweepSection


class Composed(Config):
    """All of conf/: the configuration of a trial, and the sections that concern more than one trial."""

    sweep: SweepSection
    promotion: PromotionSection

    @property
    def trial(self) -> Config:
        """The configuration that the stages get."""
        return Config.model_construct(**{name: getattr(self, name) for name in Config.model_fields})
