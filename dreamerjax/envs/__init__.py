"""Environments: `num_envs` copies of one environment, stepped together, as the agent sees them.

`base.py` has the protocol, `registry.py` finds an environment by its ID. Common to all suites are `observations.py` and
`actions.py` (what the agent sees and does), `pixels.py` (rendering), `step_result.py` (checks of `reset` and `step`),
`serial.py` (stepping), `workers.py` (processes) and `saving.py` (checkpoints).
"""

from dreamerjax.envs.base import (
    EnvEvent,
    Goal,
    Look,
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
    look_at,
    make_env,
    make_single,
    spaces_of,
)

__all__ = [
    "SUITES",
    "EnvError",
    "EnvEvent",
    "EnvFailureError",
    "Goal",
    "Look",
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
    "last_lines",
    "look_at",
    "make_env",
    "make_single",
    "spaces_of",
    "with_install_line",
]
