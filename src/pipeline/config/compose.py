"""Composition: conf/ with overrides becomes a validated configuration."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config.messages import nearest, one_line, refused_by_hydra, validate
from pipeline.config.modules import PACKAGE, modules_in_use
from pipeline.config.schema import Composed, Config
from pipeline.config.unsafe_yaml import refuse_resolvers, refuse_unsafe_yaml
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def compose(conf: Path, overrides: Sequence[str] = (), package: Path = PACKAGE) -> Config:
    """Compose `conf/config.yaml` with Hydra's `overrides` and validate the result.

    Raises:
        PipelineError: conf/ is missing or malformed, or an override or a value is refused.
    """
    return next(compose_each(conf, [overrides], package)).trial


def compose_each(conf: Path, many: Iterable[Sequence[str]], package: Path = PACKAGE) -> Iterator[Composed]:
    """Compose `conf/config.yaml` once with each of many lists of `overrides`.

    Composing takes Hydra some 0.1 s; lists that choose the same options of the groups share it.

    Args:
        conf: the folder.
        many: lists of overrides.
        package: the folder `pipeline` with the code that will run, whose digests the configuration holds.

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
                OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]), package
            )
        except MissingConfigException as error:
            group, _, option = str(error.missing_cfg_file or "").rpartition("/")
            raise PipelineError(
                f"conf/{group} has no option {option!r}.{nearest(option, error.options or [])}"
            ) from None
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise PipelineError(refused_by_hydra(error)) from None
        except ValueError as error:  # What Hydra makes of `model=null`.
            raise PipelineError(f"{' '.join(overrides)} is refused: {one_line(error)}.") from None
        yield found


def _sets_a_value(override: "Override", groups: set[str]) -> bool:
    """Whether it sets a key that is there, and does not choose the option of a group."""
    key = override.key_or_group
    is_group = key in groups or "/" in key or "@" in key
    return override.type is not None and override.type.name == "CHANGE" and not is_group


def from_hydra(composed: "DictConfig", package: Path = PACKAGE) -> Composed:
    """Resolve and validate what Hydra composed.

    Raises:
        PipelineError: a value is missing, refused, or would be read from the environment.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    refuse_resolvers(OmegaConf.to_container(composed, resolve=False))
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise PipelineError(
            f"{error.full_key} is ???: give it a value in conf/ or on the command line."
        ) from None
    except OmegaConfBaseException as error:
        raise PipelineError(one_line(error)) from None
    assert isinstance(values, dict)
    return complete({str(key): value for key, value in values.items()}, "conf/", package)


def complete(values: dict[str, Any], where: str, package: Path = PACKAGE) -> Composed:
    """Validate what conf/ composes to, and add the digests of the modules in use.

    Raises:
        PipelineError: a value is refused.
    """
    if "modules" in values:
        raise PipelineError("modules: there is no such key in conf/; it is computed.")
    return validate(values | {"modules": modules_in_use(values, package)}, Composed, where)


def _refuse_outside(hydra: "DictConfig", root: Path) -> None:
    """Hydra writes below its own folders; their values are not shown, they may hold a secret."""
    from omegaconf import OmegaConf

    for nested in (("run.dir", "output_subdir"), ("sweep.dir", "sweep.subdir", "output_subdir")):
        place = root
        for key in nested:
            place /= OmegaConf.select(hydra, key) or ""
            if not place.resolve().is_relative_to(root):
                raise PipelineError(f"hydra.{key} is outside of the project: name a folder below {root}.")
