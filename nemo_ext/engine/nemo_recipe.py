"""A run as NeMo-Run knows it, for those who launch with `nemo_run` instead of `sibol train`."""

from __future__ import annotations

import dataclasses
from typing import Any

from nemo_ext.config import RunConfig


def as_nemo_recipe(config: RunConfig) -> Any:
    """`nemo_run.Partial` that trains `config` on the ranks that NeMo-Run's executor starts (launcher "torchrun").

    Every setting stays a configurable field: `recipe.config.train.max_steps = 10`. Raises VersionError without nemo_run.
    """
    from nemo_ext.common.errors import VersionError
    from nemo_ext.engine.worker import run_rank

    try:
        import nemo_run
    except ImportError:
        raise VersionError("as_nemo_recipe needs NeMo-Run. Install it with: pip install 'sibol[nemo-run]'") from None

    def configurable(value: Any) -> Any:
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        return nemo_run.Config(type(value), **{item.name: configurable(getattr(value, item.name)) for item in dataclasses.fields(value)})

    return nemo_run.Partial(run_rank, config=configurable(config))
