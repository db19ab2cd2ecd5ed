"""The failures that have a name: how each shows in the metrics, and what to do about it.

A rule reads lines of `metrics.jsonl` and nothing else. Its remedy stands right after it, and follows from the settings
that the run has: three times, or a third of, the present value. docs/research.md explains both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dreamerjax.config import Config
from dreamerjax.monitoring.remedy import Remedy, less, more

Line = Mapping[str, float]  # of metrics.jsonl
Lines = Mapping[str, Sequence[Line]]  # kind -> its lines, oldest first

LEAST_CORRELATION = 0.3  # below it, predicted rewards fit nothing yet

# A kind of line, and a name that only lines of this kind have.
KINDS = {"train": "train/kl", "diagnosis": "diagnosis/value_bias", "eval": "eval/return_mean"}


class Rule(NamedTuple):
    """One failure."""

    kind: str  # of the line at which it is looked for
    find: Callable[[Lines, Config], str | None]  # what was seen, with numbers; None: nothing
    remedy: Callable[[Lines, Config], Remedy]  # what to do once it was seen


def _newest(lines: Sequence[Line], name: str, count: int) -> list[float]:
    """The newest `count` values of a metric; none if there are not so many, so that a rule waits."""
    if len(lines) < count:
        return []
    return [line[name] for line in list(lines)[-count:] if name in line]


def _newest_if_all(
    lines: Lines, kind: str, names: Sequence[str], count: int, holds: Callable[..., bool]
) -> list[float]:
    """The newest values of the metrics if the condition holds in each of the newest `count` lines; else nothing."""
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
        "what is not a number stays so when the run is resumed: start a new one with smaller learning rates, and look "
        "at the rewards and observations that came before",
    )


def _prior_without_gradient(lines: Lines, config: Config) -> str | None:
    names = ("train/grad_norm/prior", "train/grad_norm/encoder")
    least = config.alerts.prior_gradient
    found = _newest_if_all(lines, "train", names, config.alerts.lines, lambda prior, encoder: prior < least * encoder)
    if not found:
        return None
    under = lines["train"][-1].get("train/free_nats_share", math.nan)
    return (
        f"gradient norm {found[0]:.2g}, against {found[1]:.2g} of the encoder; {under:.0%} of the rows are under the "
        "free nats"
    )


def _let_gradient_pass(lines: Lines, config: Config) -> Remedy:
    if config.agent.world_model.free_nats_gradient == "clip":
        return Remedy({"agent.world_model.free_nats_gradient": "straight_through"}, "let it pass below the free nats")
    return Remedy(more(config, "agent.world_model.dynamics_scale"), "weigh the loss that trains the prior more")


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
        f"the observation adds {found[0]:.2f} nats to what the prior says, and the posterior has "
        f"{found[1] / highest:.0%} of the entropy that it could have; the KL may be weighed too high"
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
        return Remedy(heavy, "weigh the KL as published")
    return Remedy(more(config, "agent.world_model.reconstruction_scale"), "weigh the reconstruction more")


def _entropy_collapsed(lines: Lines, config: Config) -> str | None:
    least, goal = config.alerts.entropy_share, config.env.solve_return
    found = _newest_if_all(lines, "train", ["train/actor_entropy_share"], config.alerts.lines, lambda x: x < least)
    score = lines["eval"][-1]["eval/return_mean"] if lines["eval"] else -math.inf
    if not found or (goal is not None and score >= goal):
        return None
    short = "" if goal is None or score == -math.inf else f", with a return of {score:.0f} where {goal:g} is the goal"
    return f"the policy has {found[0]:.1%} of the entropy that it could have{short}"


def _explore_more(lines: Lines, config: Config) -> Remedy:
    changes = more(config, "agent.actor.entropy_scale")
    if config.agent.actor.entropy_schedule != "constant":
        changes["agent.actor.entropy_schedule"] = "constant"  # or the larger scale fades, too
    return Remedy(changes, "reward entropy more")


def _collector_starved(lines: Lines, config: Config) -> str | None:
    most = config.alerts.data_wait_share
    found = _newest_if_all(lines, "train", ["speed/data_wait_share"], config.alerts.lines, lambda x: x > most)
    return f"{found[0]:.0%} of the time the updates wait for data" if found else None


def _need_less_data(lines: Lines, config: Config) -> Remedy:
    if config.replay.storage == "memory":
        return Remedy({"replay.storage": "device"}, "gather batches on the device, if the replay fits there")
    words = "draw smaller batches"
    if config.replay.storage == "disk":  # a run cannot take its replay from there into memory
        words += " (or keep the replay of a new run in memory)"
    return Remedy({"train.batch_size": max(1, config.train.batch_size // 2)}, words)


def _replay_frozen(lines: Lines, config: Config) -> str | None:
    least = config.alerts.stored_share
    found = _newest_if_all(lines, "train", ["replay/added_share"], config.alerts.lines, lambda x: x < least)
    return f"{found[0]:.0%} of the rows that are collected reach it" if found else None


def _stop(lines: Lines, config: Config) -> Remedy:
    return Remedy(
        {},
        "no setting mends this, it is a fault of the program or of a change to it: stop, because nothing that is "
        "learned from here on comes from what the agent does",
    )


def _cont_head_wrong(lines: Lines, config: Config) -> str | None:
    names, most = ("diagnosis/cont_predicted", "diagnosis/cont_real"), config.alerts.cont_error
    found = _newest_if_all(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: abs(x - y) > most)
    return f"it says {found[0]:.2f} where {found[1]:.2f} is right" if found else None


def _weigh_cont_more(lines: Lines, config: Config) -> Remedy:
    return Remedy(
        more(config, "agent.world_model.cont_scale"),
        "check first that the environment ends episodes as terminated only where they are over, and as truncated at a "
        "time limit; then weigh this loss more",
    )


def _dreams_end(lines: Lines, config: Config) -> str | None:
    names, most = ("diagnosis/dream_survival_h3", "diagnosis/cont_real"), config.alerts.survival_loss
    found = _newest_if_all(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: x < y**3 - most)
    return f"{found[0]:.0%} of them go on after 3 steps, where {found[1] ** 3:.0%} of episodes do" if found else None


def _mend_dreams(lines: Lines, config: Config) -> Remedy:
    newest = lines["diagnosis"][-1]
    real = newest["diagnosis/cont_real"]
    if abs(newest.get("diagnosis/cont_predicted", real) - real) > config.alerts.cont_error / 2:
        return Remedy(more(config, "agent.world_model.cont_scale"), "weigh the continue loss more")
    return _let_gradient_pass(lines, config)._replace(words="what is seen is judged rightly, so train the prior more")


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
        "no setting mends this, the environment or a wrapper stores rewards one step off: row t holds the reward of "
        "arriving at step t",
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
            "the world model is frozen in this mode: let the policy leave what the model knows more slowly",
        )
    if config.train.mode == "world_model":
        return Remedy(more(config, "train.ratio"), "make more updates for each environment step")
    if config.train.pacing in ("fixed", "throttle"):
        return Remedy({"train.pacing": "surprise"}, "let the world model catch up while it is surprised")
    return Remedy({"train.pacing_factor": config.train.pacing_factor + 1}, "let the world model catch up for longer")


def _delusional_dreaming(lines: Lines, config: Config) -> str | None:
    """Dreamed value up, real return down, and more value than followed."""
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
        f"where {followed:.3g} followed"
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
        "the actor exploits errors of the world model: slow it, and dream less far",
    )


def _change(before: float, now: float) -> float:
    """As a share of what was before; of 1 where that is smaller."""
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
