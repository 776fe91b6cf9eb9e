"""A look at params.yaml before `dvc exp run` writes it anew. Hydra finds its plugins by their package."""

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class ParamsGuard(SearchPathPlugin):  # type: ignore[misc] # Hydra's own classes are not followed.
    """Refuses to let DVC write over an edit by hand.

    DVC composes conf/ into params.yaml before any stage runs, and keeps nothing of the file that was there.
    It composes with Hydra, which first asks its plugins where configuration lies.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Leave the path as it is.

        Raises:
            DvcException: DVC composes, and params.yaml was edited by hand.
        """
        # DVC imports it for an experiment, and for nothing else.
        if "dvc.utils.hydra" not in sys.modules:
            return
        from dvc.exceptions import DvcException

        from pipeline.config.params import refuse_edited
        from pipeline.errors import PipelineError

        [conf] = [
            Path(found.path.removeprefix("file://"))
            for found in search_path.get_path()
            if found.provider == "main"
        ]
        try:
            refuse_edited(conf.parent / "params.yaml")
        except PipelineError as error:
            raise DvcException(str(error)) from None
