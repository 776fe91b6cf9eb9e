"""Guard params.yaml against `dvc exp run`, which overwrites it. Hydra finds plugins by their package."""

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class ParamsGuard(SearchPathPlugin):  # type: ignore[misc] # mypy does not follow Hydra's classes.
    """Refuse to let DVC overwrite a params.yaml that was edited by hand.

    `dvc exp run` composes conf/ into params.yaml before any stage runs, and discards the previous content.
    It composes with Hydra, which first asks its plugins for search paths: this plugin uses that moment.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Check params.yaml if DVC is composing, and leave the search path unchanged.

        Raises:
            DvcException: If DVC is composing and params.yaml was edited by hand.
        """
        # DVC imports this module only to compose for an experiment.
        if "dvc.utils.hydra" not in sys.modules:
            return
        from dvc.exceptions import DvcException

        from pipeline.config.params import refuse_edited
        from pipeline.errors import PipelineError

        [conf] = [
            Path(element.path.removeprefix("file://"))
            for element in search_path.get_path()
            if element.provider == "main"
        ]
        try:
            refuse_edited(conf.parent / "params.yaml")
        except PipelineError as error:
            raise DvcException(str(error)) from None
