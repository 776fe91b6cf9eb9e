"""Compose conf/ and overrides into a validated configuration."""

import copy
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config.messages import nearest, one_line, refused_by_hydra, validate
from pipeline.config.modules import PACKAGE, modules_in_use
from pipeline.config.overrides import parse, refuse_several_values
from pipeline.config.schema import Composed, Config, SweepConfig
from pipeline.config.unsafe_yaml import refuse_resolvers, refuse_unsafe_yaml, yaml_fault
from pipeline.environment import device_here
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def compose(conf: Path, overrides: Sequence[str] = (), package: Path = PACKAGE) -> Config:
    """Compose `conf/config.yaml` with Hydra's `overrides` and validate the result.

    Raises:
        PipelineError: If conf/ is missing or malformed, or an override or a value is invalid.
    """
    return next(compose_each(conf, [overrides], package)).trial


def compose_each(conf: Path, many: Iterable[Sequence[str]], package: Path = PACKAGE) -> Iterator[Composed]:
    """Compose `conf/config.yaml` once with each of many lists of overrides.

    The digests of the code in the configuration are those of `package`, a folder `pipeline`.

    Raises:
        PipelineError: As `compose` does, once the faulty list is reached.
    """
    for parsed, composed in _unresolved_each(conf, many):
        yield from_hydra(composed, package, {part.key_or_group for part in parsed})


def compose_sweep(conf: Path, overrides: Sequence[str]) -> SweepConfig:
    """Compose and validate only what concerns a sweep as a whole: `name`, `tracking` and `sweep`.

    The overrides are those with one value. Together with the defaults of the keys that are swept over they
    may give a configuration that no trial has, so the other sections are not validated.

    Raises:
        PipelineError: As `compose` does, for these three.
    """
    parsed, composed = next(_unresolved_each(conf, [overrides]))
    values = {key: value for key, value in plain(composed).items() if key in SweepConfig.model_fields}
    return validate(values, SweepConfig, overridden={part.key_or_group for part in parsed})


def unresolved(conf: Path, overrides: Sequence[str] = ()) -> "DictConfig":
    """Return what Hydra composes, including its own section `hydra`; the values may be invalid.

    Raises:
        PipelineError: If conf/ is malformed, or an override names something that does not exist.
    """
    return next(_unresolved_each(conf, [overrides]))[1]


def _unresolved_each(
    conf: Path, many: Iterable[Sequence[str]]
) -> Iterator[tuple[list["Override"], "DictConfig"]]:
    """Parse and compose each list; those that choose the same options share the 0.1 s that Hydra takes."""
    # Importing Hydra takes 0.2 s, and a stage that only reads params.yaml does not need it.
    from hydra import compose as hydra_compose
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    refuse_unsafe_yaml(conf)
    groups = {path.name for path in conf.iterdir() if path.is_dir()}
    bases: dict[tuple[str, ...], DictConfig] = {}
    for overrides in many:
        parsed = parse(overrides)
        refuse_several_values(parsed)
        values = [part for part in parsed if _sets_a_value(part, groups)]
        choices = tuple(str(part.input_line) for part in parsed if not _sets_a_value(part, groups))
        try:
            if choices not in bases:
                with _hydra(conf), warnings.catch_warnings():
                    # Hydra only warns about a folder that does not exist, and then lacks the options in it.
                    warnings.filterwarnings("error", message="provider=hydra.searchpath")
                    # Folders are often named after the number of the job, which only a sweep has.
                    numbered = [*choices, "hydra.job.num=0", "hydra.job.id='0'"]
                    bases[choices] = hydra_compose("config", numbered, return_hydra_config=True)
            composed = copy.deepcopy(bases[choices])
            ConfigLoaderImpl._apply_overrides_to_config(values, composed)
            _refuse_outside(composed.hydra, conf.resolve().parent)
        except MissingConfigException as error:
            raise PipelineError(_no_such_option(error, conf)) from None
        except yaml.YAMLError as error:
            raise PipelineError(yaml_fault(error)) from None
        except (HydraException, OmegaConfBaseException) as error:
            raise PipelineError(refused_by_hydra(error)) from None
        except UserWarning as warning:
            folder = str(warning).partition("path=")[2].partition(" is not")[0]
            raise PipelineError(f"{folder} is not a folder with options of the configuration.") from None
        except ValueError as error:
            if match := re.match(r"Invalid defaults list in '(.+)'", str(error)):
                raise PipelineError(
                    f"{match[1]}.yaml: `defaults` should be a list, with lines like `- override /model: cnn`."
                ) from None
            # Raised for `model=null`, and for `- model: null` in a file.
            raise PipelineError(
                f"{' '.join(overrides) or 'conf/'} is refused: {one_line(error).strip('. ')}. An option's "
                "name that looks like a number or a boolean needs quotes (in a shell, two kinds: \"'1'\")."
            ) from None
        yield parsed, composed


@contextmanager
def _hydra(conf: Path) -> Iterator[None]:
    """Set up Hydra with `conf`, unless the application has done so already."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    instance, folder = GlobalHydra.instance(), str(conf.resolve())
    before = instance.hydra
    paths = before.config_loader.get_search_path().get_path() if before else []
    if any(str(path.path).removeprefix("file://") == folder for path in paths):
        yield
        return
    instance.clear()
    try:
        with initialize_config_dir(folder, version_base="1.3"):
            yield
    finally:
        instance.hydra = before


def _sets_a_value(part: "Override", groups: Collection[str]) -> bool:
    """Return whether an override sets an existing key and does not decide which files are composed."""
    key = part.key_or_group
    chooses = key in groups or "/" in key or "@" in key or key == "hydra.searchpath"
    return part.type is not None and part.type.name == "CHANGE" and not chooses


def _no_such_option(error: Any, conf: Path) -> str:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    if (misnamed := conf / group / f"{option}.yml").exists():
        return f"conf/{group}/{misnamed.name}: the name of an option's file ends in .yaml; rename it."
    kind = group.rpartition("/")[2]
    if "/" in group and not error.options and (conf / kind).is_dir():
        return (
            f"conf/{group}: there is no such group. To choose an option of {kind} in a list of defaults, "
            f"write `- override /{kind}: {option}`."
        )
    options = error.options or [path.stem for path in sorted((conf / group).glob("*.yaml"))]
    return f"conf/{group} has no option {option!r}.{nearest(option, options)}"


def from_hydra(composed: "DictConfig", package: Path = PACKAGE, overridden: Collection[str] = ()) -> Composed:
    """Resolve and validate what Hydra composed, with or without its own section.

    Raises:
        PipelineError: If a value is missing or invalid, or would be read from the environment.
    """
    return complete(plain(composed), "conf/", package, overridden)


def plain(composed: "DictConfig") -> dict[str, Any]:
    """Return the resolved values without Hydra's own section.

    Raises:
        PipelineError: If a value is missing, can't be resolved, or would be read from the environment.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    keys = [str(key) for key in composed if key != "hydra"]
    choices = composed.hydra.runtime.choices if "hydra" in composed else {}
    for key in keys:
        if key in choices and key not in Composed.model_fields:
            raise PipelineError(
                f"conf/{key}/{choices[key]}.yaml must begin with the line `# @package _global_`, before "
                "anything else: its keys are those of the whole configuration."
            )
    values = OmegaConf.masked_copy(composed, keys)
    refuse_resolvers(OmegaConf.to_container(values, resolve=False))
    try:
        plain = OmegaConf.to_container(values, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise PipelineError(
            f"{error.full_key} is ???: give it a value in conf/ or on the command line."
        ) from None
    except OmegaConfBaseException as error:
        raise PipelineError(refused_by_hydra(error)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def complete(
    values: dict[str, Any], where: str, package: Path = PACKAGE, overridden: Collection[str] = ()
) -> Composed:
    """Resolve train.device, add the digests of the modules in use, and validate the result.

    Raises:
        PipelineError: If a value is invalid.
    """
    if "modules" in values:
        raise PipelineError("modules: there is no such key in conf/; it is computed.")
    values = with_device(values)
    return validate(values | {"modules": modules_in_use(values, package)}, Composed, where, overridden)


def with_device(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with `train.device: auto` replaced by the device of this machine.

    That happens before names and ids are made from the values, as results are the same, bit for bit, on one
    kind of device only.
    """
    train = values.get("train")
    if not isinstance(train, dict) or train.get("device") != "auto":
        return values
    return values | {"train": train | {"device": device_here(str(train.get("backend")))}}


def _refuse_outside(hydra: "DictConfig", root: Path) -> None:
    """Refuse folders of Hydra outside of the project, without showing their values, which may be secret."""
    from omegaconf import OmegaConf

    for nested in (("run.dir", "output_subdir"), ("sweep.dir", "sweep.subdir", "output_subdir")):
        path = root
        for key in nested:
            path /= OmegaConf.select(hydra, key) or ""
            if not path.resolve().is_relative_to(root):
                raise PipelineError(f"hydra.{key} is outside of the project: name a folder below {root}.")
