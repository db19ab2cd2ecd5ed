"""The known failures: how each is detected in the metrics, and its remedy.

A rule reads only lines of `metrics.jsonl`. Its remedy is defined right after it and depends on the run's settings: it
sets three times, or a third of, the present value. docs/research.md explains both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dreamerjax.config import Config
from dreamerjax.monitoring.remedy import Remedy, less, more

Line = Mapping[str, float]  # of metrics.jsonl
Lines = Mapping[str, Sequence[Line]]  # kind -> its lines, oldest first

LEAST_CORRELATION = 0.3  # below it, predicted rewards are not meaningful yet

# Kind of line -> a metric that only lines of this kind have.
KINDS = {"train": "train/kl", "diagnosis": "diagnosis/value_bias", "eval": "eval/return_mean"}


class Rule(NamedTuple):
    """One failure."""

    kind: str  # kind of the lines at which the rule is checked
    find: Callable[[Lines, Config], str | None]  # returns a description with numbers; None: no failure
    remedy: Callable[[Lines, Config], Remedy]  # called after `find` has found the failure


def _newest(lines: Sequence[Line], name: str, count: int) -> list[float]:
    """The newest `count` values of a metric; empty if there are fewer lines."""
    if len(lines) < count:
        return []
    return [line[name] for line in list(lines)[-count:] if name in line]


def _newest_if_all(
    lines: Lines, kind: str, names: Sequence[str], count: int, holds: Callable[..., bool]
) -> list[float]:
    """The newest value of each metric if the condition is true in all of the newest `count` lines; else empty."""
    columns = [_newest(lines[kind], name, count) for name in names]
    if not all(len(column) == count for column in columns):
        return []
    if not all(holds(*row) for row in zip(*columns, strict=True)):
        return []
    return [column[-1] for column in columns]


def _not_a_number(lines: Lines, config: Config) -> str | None:
    line = lines["train"][-1]
    names = [name for name, value in line.items() if name.startswith("train/") and not math.isfinite(value)]
    return f"{', '.join(names[:3])} is not finite" if names else None


def _after_not_a_number(lines: Lines, config: Config) -> Remedy:
    rates = ("agent.world_model.learning_rate", "agent.actor.learning_rate", "agent.critic.learning_rate")
    return Remedy(
        less(config, *rates),
        "resuming does not help, because the parameters may be NaN: start a new run with smaller learning rates, and "
        "check the preceding rewards and observations",
    )


def _prior_without_gradient(lines: Lines, config: Config) -> str | None:
    names = ("train/grad_norm/prior", "train/grad_norm/encoder")
    least = config.alerts.prior_gradient
    found = _newest_if_all(lines, "train", names, config.alerts.lines, lambda prior, encoder: prior < least * encoder)
    if not found:
        return None
    under = lines["train"][-1].get("train/free_nats_share", math.nan)
    return (
        f"gradient norm {found[0]:.2g}, against {found[1]:.2g} of the encoder; {under:.0%} of the rows are below the "
        "free nats"
    )


def _let_gradient_pass(lines: Lines, config: Config) -> Remedy:
    if config.agent.world_model.free_nats_gradient == "clip":
        return Remedy({"agent.world_model.free_nats_gradient": "straight_through"}, "pass it below the free nats")
    return Remedy(more(config, "agent.world_model.dynamics_scale"), "increase the weight of the prior's loss")


def _latents_collapsed(lines: Lines, config: Config) -> str | None:
    alerts, model = config.alerts, config.agent.model
    highest = model.groups * math.log(model.classes)
    found = _newest_if_all(
        lines,
        "train",
        ["train/kl", "train/posterior_entropy"],
        alerts.lines,
        lambda kl, entropy: kl < alerts.latent_nats and entropy > alerts.latent_entropy_share * highest,
    )
    if not found:
        return None
    return (
        f"the KL between posterior and prior is {found[0]:.2f} nats, and the posterior has {found[1] / highest:.0%} of "
        "its maximum entropy; the weight of the KL may be too high"
    )


def _weigh_kl_less(lines: Lines, config: Config) -> Remedy:
    published = Config().agent.world_model
    now = config.agent.world_model
    heavy = {
        f"agent.world_model.{name}": getattr(published, name)
        for name in ("dynamics_scale", "representation_scale")
        if getattr(now, name) > getattr(published, name)
    }
    if heavy:
        return Remedy(heavy, "reduce the weight of the KL to the published one")
    return Remedy(more(config, "agent.world_model.reconstruction_scale"), "increase the weight of the reconstruction")


def _entropy_collapsed(lines: Lines, config: Config) -> str | None:
    least, goal = config.alerts.entropy_share, config.env.solve_return
    found = _newest_if_all(lines, "train", ["train/actor_entropy_share"], config.alerts.lines, lambda x: x < least)
    score = lines["eval"][-1]["eval/return_mean"] if lines["eval"] else -math.inf
    if not found or (goal is not None and score >= goal):
        return None
    gap = "" if goal is None or score == -math.inf else f", with a return of {score:.0f} instead of {goal:g}"
    return f"the policy has {found[0]:.1%} of its maximum entropy{gap}"


def _explore_more(lines: Lines, config: Config) -> Remedy:
    changes = more(config, "agent.actor.entropy_scale")
    if config.agent.actor.entropy_schedule != "constant":
        changes["agent.actor.entropy_schedule"] = "constant"  # otherwise the larger scale decays, too
    return Remedy(changes, "increase the entropy bonus")


def _collector_starved(lines: Lines, config: Config) -> str | None:
    most = config.alerts.data_wait_share
    found = _newest_if_all(lines, "train", ["speed/data_wait_share"], config.alerts.lines, lambda x: x > most)
    return f"updates wait for data {found[0]:.0%} of the time" if found else None


def _need_less_data(lines: Lines, config: Config) -> Remedy:
    if config.replay.storage == "memory":
        return Remedy({"replay.storage": "device"}, "gather batches on the device, if the replay buffer fits there")
    words = "sample smaller batches"
    if config.replay.storage == "disk":  # a run cannot move its replay buffer from disk into memory
        words += " (or start a new run with the replay buffer in memory)"
    return Remedy({"train.batch_size": max(1, config.train.batch_size // 2)}, words)


def _replay_frozen(lines: Lines, config: Config) -> str | None:
    least = config.alerts.stored_share
    found = _newest_if_all(lines, "train", ["replay/added_share"], config.alerts.lines, lambda x: x < least)
    return f"{found[0]:.0%} of the collected rows are stored" if found else None


def _stop(lines: Lines, config: Config) -> Remedy:
    return Remedy(
        {},
        "stop the run: this is a bug in the program or in a change to it, and the agent no longer learns from its "
        "new experience",
    )


def _cont_head_wrong(lines: Lines, config: Config) -> str | None:
    names, most = ("diagnosis/cont_predicted", "diagnosis/cont_real"), config.alerts.cont_error
    found = _newest_if_all(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: abs(x - y) > most)
    return f"it predicts {found[0]:.2f} instead of {found[1]:.2f}" if found else None


def _weigh_cont_more(lines: Lines, config: Config) -> Remedy:
    return Remedy(
        more(config, "agent.world_model.cont_scale"),
        "check first that the environment reports `terminated` only at an end of the task, and `truncated` at a time "
        "limit; then increase the weight of this loss",
    )


def _dreams_end(lines: Lines, config: Config) -> str | None:
    names, most = ("diagnosis/dream_survival_h3", "diagnosis/cont_real"), config.alerts.survival_loss
    found = _newest_if_all(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: x < y**3 - most)
    return f"{found[0]:.0%} of them continue after 3 steps, against {found[1] ** 3:.0%} of episodes" if found else None


def _mend_dreams(lines: Lines, config: Config) -> Remedy:
    newest = lines["diagnosis"][-1]
    real = newest["diagnosis/cont_real"]
    if abs(newest.get("diagnosis/cont_predicted", real) - real) > config.alerts.cont_error / 2:
        return Remedy(more(config, "agent.world_model.cont_scale"), "increase the weight of the continue loss")
    return _let_gradient_pass(lines, config)._replace(
        words="the continue head is correct for posterior states, so train the prior more"
    )


def _reward_shifted(lines: Lines, config: Config) -> str | None:
    alerts = config.alerts

    def fits_better(neighbour: float, own: float) -> bool:
        return neighbour > LEAST_CORRELATION and 1 - neighbour < alerts.reward_misfit * (1 - own)

    for where in ("previous", "next"):
        names = (f"diagnosis/reward_correlation_{where}", "diagnosis/reward_correlation")
        found = _newest_if_all(lines, "diagnosis", names, alerts.diagnoses, fits_better)
        if found:
            return f"they fit the {where} row better than their own (correlation {found[0]:.2f} against {found[1]:.2f})"
    return None


def _shift_rewards(lines: Lines, config: Config) -> Remedy:
    return Remedy(
        {},
        "fix the environment or wrapper, which stores rewards one step off: row t must contain the reward of arriving "
        "at step t",
    )


def _world_model_behind(lines: Lines, config: Config) -> str | None:
    names = ("diagnosis/world_model_loss_newest", "diagnosis/world_model_loss_replay")
    most = config.alerts.newest_loss
    found = _newest_if_all(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: x > most * y)
    return f"its loss is {found[0]:.3g} on the newest rows and {found[1]:.3g} on all" if found else None


def _train_model_more(lines: Lines, config: Config) -> Remedy:
    if config.train.mode == "actor_critic":
        return Remedy(
            less(config, "agent.actor.learning_rate"),
            "the world model is frozen in this mode: make the policy change more slowly",
        )
    if config.train.mode == "world_model":
        return Remedy(more(config, "train.ratio"), "make more updates for each environment step")
    if config.train.pacing in ("fixed", "throttle"):
        return Remedy({"train.pacing": "surprise"}, "train the world model more while it is surprised")
    return Remedy({"train.pacing_factor": config.train.pacing_factor + 1}, "train the world model more")


def _delusional_dreaming(lines: Lines, config: Config) -> str | None:
    """Dreamed value rises, real return falls, and the value exceeds the return that followed."""
    alerts, diagnoses, evals = config.alerts, lines["diagnosis"], lines["eval"]
    now = diagnoses[-1]
    before = [line for line in diagnoses if line["step"] <= now["step"] - alerts.window_steps]
    scores = [line["eval/return_mean"] for line in evals if line["step"] >= now["step"] - alerts.window_steps]
    if not before or len(scores) < 2:
        return None
    value, followed = now["diagnosis/value_mean"], now["diagnosis/value_return"]
    rise, fall = (_change(before[-1]["diagnosis/value_mean"], value), _change(max(scores), scores[-1]))
    if rise < alerts.value_rise or fall > -alerts.return_fall or _change(followed, value) < alerts.value_excess:
        return None
    return (
        f"dreamed value {rise:+.0%} while return {fall:+.0%} over {alerts.window_steps:,} steps; value {value:.3g}, "
        f"but {followed:.3g} followed"
    )


def _trust_dreams_less(lines: Lines, config: Config) -> Remedy:
    changes = less(config, "agent.actor.learning_rate")
    if config.train.mode == "joint" and config.train.pacing == "fixed":
        return Remedy(
            changes | {"train.pacing": "model_ratio"}, "the actor exploits errors of the world model: slow it"
        )
    horizon = max(1, config.agent.returns.imagination_horizon * 2 // 3)
    return Remedy(
        changes | {"agent.returns.imagination_horizon": horizon},
        "the actor exploits errors of the world model: slow it, and imagine fewer steps",
    )


def _change(before: float, now: float) -> float:
    """The change relative to the magnitude of `before`, but at least to 1."""
    return (now - before) / max(abs(before), 1.0)


# Name of the alert -> its rule.
RULES: Mapping[str, Rule] = {
    "not a number": Rule("train", _not_a_number, _after_not_a_number),
    "prior receives no gradient": Rule("train", _prior_without_gradient, _let_gradient_pass),
    "latents collapsed": Rule("train", _latents_collapsed, _weigh_kl_less),
    "entropy collapsed": Rule("train", _entropy_collapsed, _explore_more),
    "collector starved": Rule("train", _collector_starved, _need_less_data),
    "replay frozen": Rule("train", _replay_frozen, _stop),
    "continue head is wrong": Rule("diagnosis", _cont_head_wrong, _weigh_cont_more),
    "dreams end too soon": Rule("diagnosis", _dreams_end, _mend_dreams),
    "rewards are shifted": Rule("diagnosis", _reward_shifted, _shift_rewards),
    "world model lags behind": Rule("diagnosis", _world_model_behind, _train_model_more),
    "delusional dreaming": Rule("diagnosis", _delusional_dreaming, _trust_dreams_less),
}
