"""Computes the number of updates within a budget of environment steps; warns if they are too few."""

from dreamerjax.config import Config
from dreamerjax.monitoring.summary import count

FEW = 100  # updates


def first_train_step(config: Config) -> int:
    """Environment steps before the first update: the prefill, and a window of rows for each environment."""
    num_envs = config.env.num_envs
    window = config.train.sequence_length + config.replay.context
    return max(-(-config.train.prefill // num_envs), window) * num_envs


def planned_updates(config: Config) -> int:
    """Updates within the budget, without those that pacing adds."""
    train, num_envs = config.train, config.env.num_envs
    steps = -(-train.env_steps // num_envs) * num_envs - first_train_step(config)
    rows = train.batch_size * train.sequence_length * train.updates_per_dispatch  # of a dispatch
    warm_up = -(-train.world_model_warmup // train.updates_per_dispatch) if train.mode == "joint" else 0
    return (int(train.ratio * max(0, steps) // rows) + warm_up) * train.updates_per_dispatch


def few_updates_told(config: Config) -> str:
    """A sentence if the budget allows fewer than `FEW` updates; else empty."""
    train, updates = config.train, planned_updates(config)
    if updates >= FEW:
        return ""
    few = "no update: nothing will be learned" if not updates else f"{count(updates, 'update')}, too few to learn much"
    return (
        f"The budget of {train.env_steps:,} environment steps allows {few}. {first_train_step(config):,} of them come "
        f"before the first update, and then an update takes {train.batch_size} x {train.sequence_length} rows at "
        f"{train.ratio:g} rows a step, {train.updates_per_dispatch} updates at a time. --env-steps, --train-ratio, "
        "--train.prefill, --train.batch-size, --train.sequence-length and --train.updates-per-dispatch change it."
    )
