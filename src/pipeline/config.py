"""The configuration: its schema, its composition from conf/, and its form as params.yaml.

Every default is written in conf/, none here. The config is frozen; unknown keys, wrong types and
values out of range are refused with a sentence that names the key.
"""

import copy
import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[\w][\w .,=+-]{0,99}$")]
Head = Literal["softmax", "sigmoid"]
Activation = Literal["relu", "gelu", "silu", "tanh", "elu", "selu"]
Objective = Literal["val_accuracy", "val_loss", "parameters"]
OBJECTIVES_BY_EPOCH = ("val_accuracy", "val_loss")
Package = Annotated[str, Field(pattern=r"^(@[a-z0-9][\w.-]*/)?[a-z0-9][\w.+-]*$")]


class Section(BaseModel):
    """Frozen; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class KerasSource(Section):
    kind: Literal["keras"]
    dataset: Literal["mnist", "fashion_mnist"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]


class NpmSource(Section):
    kind: Literal["npm"]
    package: Package
    version: Annotated[str, Field(pattern=r"^\d[\w.+-]*$")]


class DebianSource(Section):
    kind: Literal["debian"]
    package: Package


class SklearnSource(Section):
    kind: Literal["sklearn"]
    dataset: Literal["digits"]


class IdxSource(Section):
    kind: Literal["idx"]
    path: Annotated[str, Field(min_length=1)]


Source = Annotated[
    KerasSource | NpmSource | DebianSource | SklearnSource | IdxSource, Field(discriminator="kind")
]


class RawDigests(Section):
    train_images: Digest
    train_labels: Digest
    test_images: Digest
    test_labels: Digest


class DataSection(Section):
    name: Name
    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=1000)]
    sources: Annotated[tuple[Source, ...], Field(strict=False, min_length=1)]
    sha256: RawDigests | None
    timeout: Positive
    retries: Annotated[int, Field(ge=0, le=10)]
    max_bytes: Count

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes has a name twice: reports tell classes apart by name")
        return self


class PreprocessSection(Section):
    validation_fraction: Fraction
    validation_split: Literal["last", "stratified"]
    seed: Seed


class MlpSection(Section):
    name: Literal["mlp"]
    hidden_units: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False)]
    activation: Activation
    dropout: Fraction
    head: Head


class CnnStage(Section):
    filters: Annotated[int, Field(ge=1, le=10_000)]
    kernel_size: Annotated[int, Field(ge=1, le=99)]
    convolutions: Annotated[int, Field(ge=1, le=100)]
    stride: Annotated[int, Field(ge=1, le=10)]
    pool: bool


class CnnSection(Section):
    name: Literal["cnn"]
    stages: Annotated[tuple[CnnStage, ...], Field(strict=False, min_length=1)]
    normalisation: Literal["batch", "none"]
    activation: Activation
    dropout: Fraction
    head: Head


ModelSection = Annotated[MlpSection | CnnSection, Field(discriminator="name")]


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
    batch_size: Annotated[int, Field(ge=1, le=100_000)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    shuffle: Literal["once", "every_epoch"]
    augment: AugmentSection
    early_stopping: EarlyStopping
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    slice_megabytes: Annotated[int, Field(ge=1, le=100_000)]
    xla: bool | None
    threads: Annotated[int, Field(ge=1, le=1024)]

    @model_validator(mode="after")
    def _only_adamw_decays(self) -> Self:
        if self.optimizer == "adam" and self.weight_decay > 0:
            raise ValueError(
                f"weight_decay needs optimizer adamw: with adam it must be 0.0 (it is {self.weight_decay})"
            )
        return self


class EvaluateSection(Section):
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    worst_mistakes: Annotated[int, Field(ge=1, le=400)]
    shifts: Annotated[int, Field(ge=0, le=100)]
    doubtful_labels: Annotated[int, Field(ge=0, le=400)]


class TrackingSection(Section):
    uri: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+]*:[^\s@]+$")] | None
    experiment: Name
    run_name: Name | None
    timeout: Annotated[float, Field(gt=0, le=60)]


class Config(Section):
    """The whole configuration; its sections are the groups of conf/."""

    name: Name
    seed: Seed
    data: DataSection
    preprocess: PreprocessSection
    model: ModelSection
    train: TrainSection
    evaluate: EvaluateSection
    tracking: TrackingSection

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
    trials: Count
    seconds: Positive | None
    sampler: Literal["tpe", "random", "grid"]
    pruner: Literal["none", "median", "hyperband"]
    seed: Seed

    @model_validator(mode="after")
    def _pruning_compares_one_value(self) -> Self:
        if self.pruner != "none" and (
            len(self.objectives) > 1 or self.objectives[0] not in OBJECTIVES_BY_EPOCH
        ):
            raise ValueError(
                f"pruner {self.pruner} needs one objective that each epoch has, "
                f"{' or '.join(OBJECTIVES_BY_EPOCH)}: set it, or pruner to none"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives has a name twice")
        return self


class Composed(Config):
    """All of conf/: the configuration of a trial, and how a sweep goes about its trials."""

    sweep: SweepSection

    @property
    def trial(self) -> Config:
        """What the stages are given."""
        return Config.model_construct(**{name: getattr(self, name) for name in Config.model_fields})


Schema = TypeVar("Schema", bound=Config)


def validate(values: Mapping[str, Any], schema: type[Schema], where: str = "conf/") -> Schema:
    """Check plain values against the schema.

    Raises:
        PipelineError: a sentence per fault that names the key, its value and what is allowed.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        faults = [_sentence(fault) for fault in error.errors()]
        raise PipelineError(f"The configuration in {where} is refused.\n" + "\n".join(faults)) from None


def compose(conf: Path, overrides: Sequence[str] = ()) -> Config:
    """Compose `conf/config.yaml` with Hydra's `overrides` and validate the result.

    Raises:
        PipelineError: conf/ is missing or malformed, or an override or a value is refused.
    """
    return next(compose_each(conf, [overrides])).trial


def compose_each(conf: Path, many: Iterable[Sequence[str]]) -> Iterator[Composed]:
    """Compose `conf/config.yaml` once with each of many lists of `overrides`.

    Composing takes Hydra some 0.1 s; lists that choose the same options of the groups share it.

    Raises:
        PipelineError: as `compose` does, when its turn comes.
    """
    # Hydra costs 0.2 s, which a stage that only reads params.yaml need not pay.
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    @contextmanager
    def hydra() -> Iterator[None]:
        """Hydra with `conf`, which the application may have set up already."""
        instance, place = GlobalHydra.instance(), str(conf.resolve())
        before = instance.hydra
        paths = before.config_loader.get_search_path().get_path() if before else []
        if any(path.path == f"file://{place}" for path in paths):
            yield
            return
        instance.clear()
        try:
            with initialize_config_dir(place, version_base="1.3"):
                yield
        finally:
            instance.hydra = before

    refuse_unsafe_yaml(conf)
    groups = {path.name for path in conf.iterdir() if path.is_dir()}
    bases: dict[tuple[str, ...], DictConfig] = {}
    parser = OverridesParser.create()
    for overrides in many:
        try:
            parsed = parser.parse_overrides(list(overrides))
            values = [part for part in parsed if _sets_a_value(part, groups)]
            choices = tuple(str(part.input_line) for part in parsed if not _sets_a_value(part, groups))
            if choices not in bases:
                with hydra():
                    # Folders are often named by the number of the job, which only a sweep has.
                    numbered = [*choices, "hydra.job.num=0", "hydra.job.id='0'"]
                    bases[choices] = hydra_compose("config", numbered, return_hydra_config=True)
            composed = copy.deepcopy(bases[choices])
            ConfigLoaderImpl._apply_overrides_to_config(values, composed)
            _refuse_outside(composed.hydra, conf.resolve().parent)
            found = from_hydra(
                OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            )
        except MissingConfigException as error:
            group, _, option = str(error.missing_cfg_file or "").rpartition("/")
            raise PipelineError(
                f"conf/{group} has no option {option!r}.{_nearest(option, error.options or [])}"
            ) from None
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise PipelineError(_refused_by_hydra(error)) from None
        except ValueError as error:  # What Hydra makes of `model=null`.
            raise PipelineError(f"{' '.join(overrides)} is refused: {_one_line(error)}.") from None
        yield found


def _sets_a_value(override: "Override", groups: set[str]) -> bool:
    """Whether it sets a key that is there, and does not choose the option of a group."""
    key = override.key_or_group
    is_group = key in groups or "/" in key or "@" in key
    return override.type is not None and override.type.name == "CHANGE" and not is_group


def from_hydra(composed: "DictConfig") -> Composed:
    """Resolve and validate what Hydra composed.

    Raises:
        PipelineError: a value is missing, refused, or would be read from the environment.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    _refuse_resolvers(OmegaConf.to_container(composed, resolve=False))
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise PipelineError(
            f"{error.full_key} is ???: give it a value in conf/ or on the command line."
        ) from None
    except OmegaConfBaseException as error:
        raise PipelineError(_one_line(error)) from None
    assert isinstance(values, dict)
    return validate({str(key): value for key, value in values.items()}, Composed)


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings as (dotted key, value); lists count as one value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- params.yaml -------------------------------------------------------------------------------

_HEADER = """\
# Composed from conf/ by the stage `compose`: edit conf/, not this file.
# For one run:  dvc exp run -S train.learning_rate=0.01   or   python -m pipeline train.learning_rate=0.01
# content: {digest}
"""


def dump(config: Config) -> str:
    """The text of params.yaml: a header with the content's digest, then every value, in schema order."""
    body = yaml.dump(
        config.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return _HEADER.format(digest=_digest(body)) + body


def read_params(path: Path) -> Config:
    """Read what `dump` wrote.

    Raises:
        PipelineError: the file is missing, malformed, or was edited by hand.
    """
    return validate(yaml.load(check_unedited(path), Loader=yaml.CSafeLoader), Config, where=path.name)


def check_unedited(path: Path) -> str:
    """The body of a params.yaml that is as `dump` wrote it.

    Raises:
        PipelineError: the file is missing or was edited by hand.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: `dvc repro` composes it from conf/.") from None
    _, _, rest = text.partition("# content: ")
    digest, _, body = rest.partition("\n")
    if not body or digest != _digest(body):
        raise PipelineError(
            f"{path.name} was edited by hand, and composing conf/ again would lose the edit. Either put the "
            "value into conf/, or try it once with `python -m pipeline KEY=VALUE` or "
            "`dvc exp run -S KEY=VALUE`; then delete params.yaml and run `dvc repro`."
        )
    return body


def view(config: Config, keys: Sequence[str]) -> Config:
    """The part of `config` that lies under `keys` (dotted); reading any other key raises AttributeError.

    A stage is given the view that its `params:` in dvc.yaml declares, so it can't depend on a value
    that DVC does not watch.
    """
    tree: dict[str, Any] = {}
    for key in keys:
        branch = tree
        *parents, last = key.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = None

    def prune(section: BaseModel, wanted: dict[str, Any]) -> BaseModel:
        kept: dict[str, Any] = {}
        for name, below in wanted.items():
            value = getattr(section, name)
            kept[name] = prune(value, below) if below else value
        return type(section).model_construct(**kept)

    pruned = prune(config, tree)
    assert isinstance(pruned, Config)
    return pruned


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, with floats that YAML 1.1 and 1.2 readers both take for floats."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    mantissa, exponent_mark, exponent = text.partition("e")
    if exponent_mark and "." not in mantissa:
        text = f"{mantissa}.0e{exponent}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _represent_float)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


# --- refusals ----------------------------------------------------------------------------------

_MAX_NODES = 10_000
_MAX_DEPTH = 50


def refuse_unsafe_yaml(conf: Path) -> None:
    """Look through every YAML file below `conf` before anything loads it.

    Raises:
        PipelineError: a file has a Python tag, a `_target_`, a duplicate key, a syntax error, a value
            from the environment, 50 levels, or aliases that expand to more than 10,000 nodes.
    """
    if not (conf / "config.yaml").is_file():
        raise PipelineError(f"There is no {conf / 'config.yaml'}: run this in a clone of the project.")
    for path in sorted(conf.rglob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            _refuse_depth(text, path)
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
            if root is not None:
                _check_node(root, path, {})
            values = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 (it makes texts only)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PipelineError(f"{path} is not valid YAML: {error}") from None
        # Hydra's own settings are not part of what is written or shown.
        if isinstance(values, dict) and path.relative_to(conf).parts[0] != "hydra":
            _refuse_resolvers({key: value for key, value in values.items() if key != "hydra"})


def _refuse_depth(text: str, path: Path) -> None:
    """libyaml crashes on deep nesting once it builds nodes; its events are safe to count."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise PipelineError(f"{path} is refused: it is nested more than {_MAX_DEPTH} levels deep.")


def _check_node(node: yaml.Node, path: Path, sizes: dict[int, int]) -> int:
    """The number of nodes that `node` expands to; each anchored node is visited once."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = _MAX_NODES  # An alias to its own parent never ends.
    line = node.start_mark.line + 1
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise PipelineError(f"{path}, line {line}: the tag {node.tag} is refused; plain values only.")
    size = 1
    if isinstance(node, yaml.MappingNode):
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in names.items():
            if times > 1:
                raise PipelineError(f"{path}, line {line}: the key {name!r} is written twice.")
        if "_target_" in names:
            raise PipelineError(
                f"{path}, line {line}: _target_ is refused; models and sources are chosen by name."
            )
        size += sum(
            _check_node(key, path, sizes) + _check_node(value, path, sizes) for key, value in node.value
        )
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check_node(item, path, sizes) for item in node.value)
    if size > _MAX_NODES:
        raise PipelineError(f"{path}, line {line}: its aliases expand to over {_MAX_NODES} values.")
    sizes[id(node)] = size
    return size


def _refuse_resolvers(values: Any) -> None:
    """Values computed from the environment would carry secrets into params.yaml and MLflow."""
    for key, value in leaves(values):
        if "${" in re.sub(r"\$\{[\w.\[\]]+\}", "", str(value)):
            raise PipelineError(
                f"{key} is {value}: only references to other keys (${{a.b}}) may stand in conf/, since "
                "params.yaml and MLflow show every value. Tools read secrets from the environment."
            )


def _refuse_outside(hydra: "DictConfig", root: Path) -> None:
    """Hydra writes below its own folders; their values are not shown, they may hold a secret."""
    from omegaconf import OmegaConf

    for nested in (("run.dir", "output_subdir"), ("sweep.dir", "sweep.subdir", "output_subdir")):
        place = root
        for key in nested:
            place /= OmegaConf.select(hydra, key) or ""
            if not place.resolve().is_relative_to(root):
                raise PipelineError(f"hydra.{key} is outside of the project: name a folder below {root}.")


def _sentence(fault: ErrorDetails) -> str:
    """What pydantic found, for the person who wrote the value."""
    tags = _tags()
    key = ".".join(str(part) for part in fault["loc"] if part not in tags)
    if fault["type"] == "extra_forbidden":
        return _no_such_key(key, _siblings(key))
    if fault["type"] == "missing":
        return f"{key}: the key is missing."
    if fault["type"] == "value_error":
        return f"{key + ': ' if key else ''}{fault['ctx']['error']}."
    should = re.sub(r"^\w+ should", "should", fault["msg"])
    # A refused address may hold a password.
    value = re.sub(r"//[^/\s]*@", "//...@", repr(fault["input"]))
    return f"{key} is {value}: {should}{_range(key)}."


_SIGNS = {"gt": "above ", "ge": "from ", "lt": "below ", "le": "up to "}


def _range(key: str) -> str:
    """The bounds of a number in the schema, for a message: " (from 1 up to 400)"."""
    fields: list[Any] = []
    sections: list[type[BaseModel]] = [Composed]
    for name in key.split("."):
        fields = [section.model_fields[name] for section in sections if name in section.model_fields]
        sections = [section for field in fields for section in _sections(field.annotation)]
    metadata = fields[0].metadata if fields else []
    bounds = [
        f"{word}{getattr(constraint, sign):,}"
        for sign, word in _SIGNS.items()
        for constraint in metadata
        if hasattr(constraint, sign)
    ]
    return f" ({' '.join(bounds)})" if bounds else ""


def _tags() -> set[str]:
    """What tells the members of a union apart; in the location of a fault it stands among the keys."""
    literals = [
        get_args(field.annotation)
        for section in Section.__subclasses__()
        for field in section.model_fields.values()
        if get_origin(field.annotation) is Literal
    ]
    return {values[0] for values in literals if len(values) == 1}


def _no_such_key(key: str, names: Sequence[str]) -> str:
    if key in _keys():
        group, dot, _ = key.partition(".")
        if not dot:
            return f"{key}: conf/config.yaml lacks the key; put it back."
        return f"{key}: the chosen {group} has no such key; another one in conf/{group} has."
    return f"{key}: there is no such key.{_nearest(key, names) or _nearest(key, _siblings(key))}"


def _siblings(key: str) -> list[str]:
    """The keys of the schema in the same section as `key`."""
    return [name for name in _keys() if name.rpartition(".")[0] == key.rpartition(".")[0]]


def _keys(section: type[BaseModel] = Composed, prefix: str = "") -> list[str]:
    """All dotted keys of the schema, sections and leaves, but for those of a list's items."""
    found = []
    for name, field in section.model_fields.items():
        found.append(f"{prefix}{name}")
        if get_origin(field.annotation) is not tuple:
            for below in _sections(field.annotation):
                found += _keys(below, f"{prefix}{name}.")
    return list(dict.fromkeys(found))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The section that an annotation stands for, or all that a choice of sections does."""
    options = (annotation, *get_args(annotation))
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _refused_by_hydra(error: Exception) -> str:
    """Hydra's complaint; of a key that is not there, in words that lead to the right one."""
    text = _one_line(error)
    wanted = re.match(r"Could not (?:override|delete from config)[^']*'([^']+)'", text)
    return _no_such_key(wanted[1], _keys()) if wanted else text


def _nearest(wanted: str, names: Sequence[str]) -> str:
    leaf = wanted.rpartition(".")[2]
    near = [name for name in names if leaf == "".join(word[0] for word in name.rpartition(".")[2].split("_"))]
    near += difflib.get_close_matches(wanted, names, n=2, cutoff=0.6)
    by_leaf = {name.rpartition(".")[2]: name for name in names}
    near += [by_leaf[match] for match in difflib.get_close_matches(leaf, by_leaf, n=2, cutoff=0.6)]
    near = list(dict.fromkeys(near))
    if near:
        return " Did you mean " + " or ".join(near[:3]) + "?"
    return f" There are: {', '.join(names)}." if names and len(names) < 30 else ""


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith("object_type="))
