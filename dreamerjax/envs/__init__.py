"""Environments: `num_envs` copies of one environment, stepped together, as the agent sees them.

`base.py` has the protocol, `registry.py` finds an environment by its ID. Common to all suites are `observations.py` and
`actions.py` (what the agent sees and does), `pixels.py` (rendering), `step_result.py` (checks of `reset` and `step`),
`serial.py` (stepping), `workers.py` (processes) and `saving.py` (checkpoints).
"""

from dreamerjax.envs.base import (
    EnvEvent,
    EnvInfo,
    Goal,
    VectorEnv,
    copy_seeds,
)
from dreamerjax.envs.errors import (
    EnvError,
    EnvFailureError,
    RenderError,
    StateError,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    cannot_be_imported,
    cannot_be_made,
    last_lines,
    with_install_line,
)
from dreamerjax.envs.registry import (
    SUITES,
    Suite,
    did_you_mean_id,
    inspect_env,
    make_env,
    make_single,
    spaces_of,
)

__all__ = [
    "SUITES",
    "EnvError",
    "EnvEvent",
    "EnvFailureError",
    "EnvInfo",
    "Goal",
    "RenderError",
    "StateError",
    "Suite",
    "UnknownEnvironmentError",
    "UnsupportedSpaceError",
    "VectorEnv",
    "cannot_be_imported",
    "cannot_be_made",
    "copy_seeds",
    "did_you_mean_id",
    "inspect_env",
    "last_lines",
    "make_env",
    "make_single",
    "spaces_of",
    "with_install_line",
]
