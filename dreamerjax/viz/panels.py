"""The panels of a run's health: what each draws, and how it judges the run that it shows."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dreamerjax.config import Config
from dreamerjax.monitoring.alerts import Alert
from dreamerjax.viz.learning import judge_learning
from dreamerjax.viz.verdict import (
    Lines,
    Verdict,
    least_updates,
    look,
    newest_of,
    sound,
    unclear,
    updates_of,
    values_of,
)

DIAGNOSES = 3  # the newest, whose means are judged
FEWEST_LINES = 4  # of train metrics, to tell where a loss goes
VALUE_OFF = 0.3  # of the largest return that followed, by which the value may be off
NEWEST_LOSS = 2.0  # times that on all rows, for the loss on the newest
LARGE_KL = 0.25  # of the nats that the latents can hold, after one imagined step
LEAST_AGREEMENT = 0.6  # of prior and posterior, as a share of the groups
SMALL_RECONSTRUCTION = 0.05  # symlog units squared: nothing left to learn
SMALL_REWARD = 0.7  # nats: what the two-hot code of a reward that is known costs, at most
RISEN = 2.0  # times the lowest that a loss had: it rises
FALLEN = 0.9  # of its first value: it fell
STILL_RANDOM = 0.95  # of the most entropy


class Panel(NamedTuple):
    """Curves that belong together, and what to say of them."""

    title: str
    metrics: Mapping[str, str]  # label -> metric
    judge: Callable[[Lines, Config], Verdict]
    alerts: tuple[str, ...] = ()  # names of those that are about it
    logarithmic: bool = False
    share: bool = False  # from 0 to 1: all of these have the same axis


def judge_panel(panel: Panel, lines: Lines, config: Config, standing: Mapping[str, Alert]) -> Verdict:
    """What a panel shows of this run: an alert that has not ceased, or else what its numbers say.

    Args:
        panel: one of `PANELS`.
        lines: of `read_metrics`.
        config: of the run.
        standing: of `Watch`, by name.
    """
    newest = {label: line[name] for label, name in panel.metrics.items() for line in lines if name in line}
    if not newest:
        return unclear("Nothing was measured.")
    if broken := [label for label, value in newest.items() if not math.isfinite(value)]:
        return look(f"Not a number at the end: {', '.join(broken)}.")
    for name in panel.alerts:
        if name in standing:
            return look(f"Alert since {standing[name].step:,} environment steps, {standing[name]}.")
    return panel.judge(lines, config)


def _of_returns(lines: Lines, config: Config) -> Verdict:
    return judge_learning(lines, config).verdict


def _of_value(lines: Lines, config: Config) -> Verdict:
    followed = values_of(lines, "diagnosis/value_return")
    if len(followed) < DIAGNOSES:
        return _too_few(len(followed))
    value, real = (newest_of(lines, f"diagnosis/{name}", DIAGNOSES) for name in ("value_mean", "value_return"))
    told = f"The critic expects {value:.3g}, and {real:.3g} followed (means of the last {DIAGNOSES} diagnoses)"
    largest = max(map(abs, followed))
    most = VALUE_OFF * largest
    if value - real > most:
        return look(f"{told}: dreams are better than the world, or the critic has not learned yet.")
    if real - value > most:
        return look(f"{told}: the critic lags behind what the policy gets.")
    return sound(f"{told}: they differ by {abs(value - real) / max(largest, 1e-9):.0%} of the most that ever followed.")


def _of_model_loss(lines: Lines, config: Config) -> Verdict:
    if (count := len(values_of(lines, "diagnosis/world_model_loss_newest"))) < DIAGNOSES:
        return _too_few(count)
    newest, everywhere = (newest_of(lines, f"diagnosis/world_model_loss_{x}", DIAGNOSES) for x in ("newest", "replay"))
    told = f"On the newest rows it is {newest:.3g}, on all {everywhere:.3g}"
    if newest > NEWEST_LOSS * everywhere:
        return look(f"{told}: the policy is where the model does not know its way yet.")
    return sound(f"{told}: less than {NEWEST_LOSS:g} times as much, so that the model knows where the policy is.")


def _of_kl(lines: Lines, config: Config) -> Verdict:
    first = values_of(lines, "diagnosis/dream_kl_h1")
    if len(first) < DIAGNOSES:
        return _too_few(len(first))
    means = {h: newest_of(lines, f"diagnosis/dream_kl_h{h}", DIAGNOSES) for h in (1, 3, 15)}
    told = ", ".join(f"{nats:.3g} nats after {h}" for h, nats in means.items() if math.isfinite(nats))
    told = f"Seeing corrects a dream by {told} imagined steps"
    most = config.agent.model.groups * math.log(config.agent.model.classes)
    if means[1] > LARGE_KL * most:
        return look(f"{told}: after one step that is much of the {most:.3g} that there can be; the prior knows little.")
    return sound(f"{told}; there can be {most:.3g}.")


def _of_agreement(lines: Lines, config: Config) -> Verdict:
    agreements = values_of(lines, "diagnosis/prior_agreement")
    if len(agreements) < DIAGNOSES:
        return _too_few(len(agreements))
    share = newest_of(lines, "diagnosis/prior_agreement", DIAGNOSES)
    told = f"Dreamed and seen have the same most likely class in {share:.0%} of the groups"
    chance = f"chance would have {1 / config.agent.model.classes:.0%}"
    if share < LEAST_AGREEMENT:
        return look(f"{told}; {chance}. The prior does not follow what is seen.")
    return sound(f"{told}; {chance}.")


def _of_continuing(lines: Lines, config: Config) -> Verdict:
    if (count := len(values_of(lines, "diagnosis/cont_predicted"))) < DIAGNOSES:
        return _too_few(count)
    predicted, real = (newest_of(lines, f"diagnosis/cont_{name}", DIAGNOSES) for name in ("predicted", "real"))
    told = f"Predicted {predicted:.3f}, real {real:.3f}"
    if abs(predicted - real) > config.alerts.cont_error:
        return look(f"{told}: the continue head is wrong.")
    alive = newest_of(lines, "diagnosis/dream_survival_h15", DIAGNOSES)
    if alive < real**15 - config.alerts.survival_loss:
        return look(f"{told}, but {alive:.0%} of dreams go on after 15 steps, where {real**15:.0%} of episodes would.")
    return sound(f"{told}: they agree.")


def _of_gradients(lines: Lines, config: Config) -> Verdict:
    names = ("prior", "posterior", "encoder", "decoder", "gru")
    norms = {name: newest_of(lines, f"train/grad_norm/{name}", config.alerts.lines) for name in names}
    if not norms["prior"] > config.alerts.prior_gradient * norms["encoder"]:
        return look(
            f"The prior's is {norms['prior']:.2g}, the encoder's {norms['encoder']:.2g}: the prior is not trained."
        )
    if still := [name for name, norm in norms.items() if norm == 0]:
        return look(f"No gradient reaches {', '.join(still)}.")
    return sound(
        f"Every part is trained; the smallest norm is {min(norms.values()):.2g}, the prior's {norms['prior']:.2g}."
    )


def _of_entropy(lines: Lines, config: Config) -> Verdict:
    shares = values_of(lines, "train/actor_entropy_share")
    now, updates = shares[-1], updates_of(lines, config)
    if all(share == 1 for share in shares):
        return unclear("It has been the most throughout: there is nothing to choose, or the actor was not trained.")
    told = f"The policy has {now:.0%} of the most entropy, after {shares[0]:.0%} at first"
    if now < config.alerts.entropy_share and judge_learning(lines, config).word != "solved":
        return look(f"{told}: it explores little more, and has not reached its goal.")
    if updates < least_updates(config):
        return unclear(f"{told}; {updates:,} updates are few.")
    if now > STILL_RANDOM:
        return look(f"{told}: after {updates:,} updates it is still close to random.")
    return sound(f"{told}: it has made up its mind in part, and still explores.")


def _of_loss(metric: str, small: float) -> Callable[[Lines, Config], Verdict]:
    """Judges where a loss of the world model goes; below `small`, nothing is left to learn."""

    def judge(lines: Lines, config: Config) -> Verdict:
        values = values_of(lines, metric)
        if len(values) < FEWEST_LINES:
            return unclear(f"{len(values)} measurements are too few to tell.")
        first, last = values[0], newest_of(lines, metric, max(1, len(values) // 5))
        told = f"{first:.3g} at first, {last:.3g} at the end"
        if last <= small:
            return sound(f"{told}: little is left to learn.")
        if last > RISEN * min(values):
            return look(f"{told}, after {min(values):.3g} at its lowest: it rises again.")
        if last < FALLEN * first:
            return sound(f"{told}: it fell.")
        if _trained_before(lines, config):
            return sound(f"{told}: the model had learned before this run began.")
        if updates_of(lines, config) < least_updates(config):
            return unclear(f"{told}; {updates_of(lines, config):,} updates are few.")
        return look(f"{told}: it does not fall.")

    return judge


def _trained_before(lines: Lines, config: Config) -> bool:
    """Whether the reward head knew something when the run began: at first it knows nothing of its bins."""
    return values_of(lines, "train/reward_loss")[0] < FALLEN * math.log(config.agent.model.bins)


def _too_few(count: int) -> Verdict:
    return unclear(f"{count} diagnos{'is is' if count == 1 else 'es are'} too few to tell.")


PANELS: tuple[Panel, ...] = (
    Panel("greedy return", {"return": "eval/return_mean"}, _of_returns),
    Panel(
        "policy's entropy, share of the most",
        {"entropy": "train/actor_entropy_share"},
        _of_entropy,
        ("entropy collapsed",),
        share=True,
    ),
    Panel(
        "reconstruction loss",
        {"reconstruction": "train/reconstruction_loss"},
        _of_loss("train/reconstruction_loss", SMALL_RECONSTRUCTION),
        logarithmic=True,
    ),
    Panel(
        "reward loss, nats",
        {"reward": "train/reward_loss"},
        _of_loss("train/reward_loss", SMALL_REWARD),
        ("rewards are shifted",),
        logarithmic=True,
    ),
    Panel(
        "value against what followed",
        {"value": "diagnosis/value_mean", "followed": "diagnosis/value_return"},
        _of_value,
        ("delusional dreaming",),
    ),
    Panel(
        "world model's loss",
        {"newest rows": "diagnosis/world_model_loss_newest", "all rows": "diagnosis/world_model_loss_replay"},
        _of_model_loss,
        ("world model lags behind",),
        logarithmic=True,
    ),
    Panel(
        "KL by imagined steps, nats",
        {str(h): f"diagnosis/dream_kl_h{h}" for h in (1, 3, 15)},
        _of_kl,
        ("latents collapsed",),
    ),
    Panel(
        "prior and posterior agree, share of groups",
        {"same class": "diagnosis/prior_agreement"},
        _of_agreement,
        share=True,
    ),
    Panel(
        "probability to go on",
        {
            "predicted": "diagnosis/cont_predicted",
            "real": "diagnosis/cont_real",
            "dreams after 15": "diagnosis/dream_survival_h15",
        },
        _of_continuing,
        ("continue head is wrong", "dreams end too soon"),
        share=True,
    ),
    Panel(
        "gradient norms",
        {name: f"train/grad_norm/{name}" for name in ("prior", "posterior", "encoder", "decoder", "gru")},
        _of_gradients,
        ("not a number", "prior receives no gradient"),
        logarithmic=True,
    ),
)
