"""The diagnostic panels of a run: the metrics of each, and the function that gives its verdict."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dreamerjax.config import Config
from dreamerjax.monitoring.alerts import Alert
from dreamerjax.viz.learning import judge_learning
from dreamerjax.viz.verdict import (
    Lines,
    Verdict,
    min_updates,
    newest_of,
    ok,
    unclear,
    updates_of,
    values_of,
    warning,
)

DIAGNOSES = 3  # verdicts use the means of the newest ones
MIN_LINES = 4  # of train metrics, to judge the trend of a loss
MAX_VALUE_ERROR = 0.3  # of the value, as a fraction of the largest observed return
MAX_NEWEST_LOSS = 2.0  # loss on the newest rows, as a multiple of that on all rows
MAX_KL = 0.25  # after one imagined step, as a fraction of the maximum nats of the latents
MIN_AGREEMENT = 0.6  # of prior and posterior, as a fraction of the groups
SMALL_RECONSTRUCTION = 0.05  # symlog units squared; below, the loss counts as converged
SMALL_REWARD = 0.7  # nats, the maximum two-hot cross-entropy of a known reward; below, the loss counts as converged
RISING = 2.0  # a loss above this multiple of its minimum is rising
FALLEN = 0.9  # a loss below this fraction of its first value has fallen
STILL_RANDOM = 0.95  # entropy, as a fraction of the maximum


class Panel(NamedTuple):
    """Metrics drawn in one chart, and the function that judges them."""

    title: str
    metrics: Mapping[str, str]  # label -> metric
    judge: Callable[[Lines, Config], Verdict]
    alerts: tuple[str, ...] = ()  # names of alerts about these metrics
    logarithmic: bool = False
    share: bool = False  # the y axis is from 0 to 1


def judge_panel(panel: Panel, lines: Lines, config: Config, standing: Mapping[str, Alert]) -> Verdict:
    """The verdict on a panel: an alert that is still active, or else the verdict on its numbers.

    Args:
        panel: one of `PANELS`.
        lines: of `read_metrics`.
        config: of the run.
        standing: active alerts of `Watch`, by name.
    """
    newest = {label: line[name] for label, name in panel.metrics.items() for line in lines if name in line}
    if not newest:
        return unclear("No data.")
    if broken := [label for label, value in newest.items() if not math.isfinite(value)]:
        return warning(f"The last value is not finite: {', '.join(broken)}.")
    for name in panel.alerts:
        if name in standing:
            return warning(f"Alert since step {standing[name].step:,}, {standing[name]}.")
    return panel.judge(lines, config)


def _of_returns(lines: Lines, config: Config) -> Verdict:
    return judge_learning(lines, config).verdict


def _of_value(lines: Lines, config: Config) -> Verdict:
    followed = values_of(lines, "diagnosis/value_return")
    if len(followed) < DIAGNOSES:
        return _too_few(len(followed))
    value, real = (newest_of(lines, f"diagnosis/{name}", DIAGNOSES) for name in ("value_mean", "value_return"))
    text = f"Predicted value {value:.3g}, observed return {real:.3g} (means of the last {DIAGNOSES} diagnoses)"
    largest = max(map(abs, followed))
    most = MAX_VALUE_ERROR * largest
    if value - real > most:
        return warning(f"{text}: imagined returns exceed real ones, or the critic has not learned yet.")
    if real - value > most:
        return warning(f"{text}: the critic lags behind the policy's returns.")
    return ok(f"{text}: they differ by {abs(value - real) / max(largest, 1e-9):.0%} of the largest observed return.")


def _of_model_loss(lines: Lines, config: Config) -> Verdict:
    if (count := len(values_of(lines, "diagnosis/world_model_loss_newest"))) < DIAGNOSES:
        return _too_few(count)
    newest, everywhere = (newest_of(lines, f"diagnosis/world_model_loss_{x}", DIAGNOSES) for x in ("newest", "replay"))
    text = f"{newest:.3g} on the newest rows, {everywhere:.3g} on all rows"
    if newest > MAX_NEWEST_LOSS * everywhere:
        return warning(f"{text}: the policy reaches states that the model has not learned yet.")
    return ok(f"{text}, a ratio below {MAX_NEWEST_LOSS:g}: the model has learned the states that the policy reaches.")


def _of_kl(lines: Lines, config: Config) -> Verdict:
    first = values_of(lines, "diagnosis/dream_kl_h1")
    if len(first) < DIAGNOSES:
        return _too_few(len(first))
    means = {h: newest_of(lines, f"diagnosis/dream_kl_h{h}", DIAGNOSES) for h in (1, 3, 15)}
    text = ", ".join(f"{nats:.3g} nats after {h}" for h, nats in means.items() if math.isfinite(nats))
    text = f"KL between posterior and dreamed prior: {text} imagined steps"
    most = config.agent.model.groups * math.log(config.agent.model.classes)
    if means[1] > MAX_KL * most:
        return warning(f"{text}; the maximum is {most:.3g}. After one step this is large: the prior predicts poorly.")
    return ok(f"{text}; the maximum is {most:.3g}.")


def _of_agreement(lines: Lines, config: Config) -> Verdict:
    agreements = values_of(lines, "diagnosis/prior_agreement")
    if len(agreements) < DIAGNOSES:
        return _too_few(len(agreements))
    share = newest_of(lines, "diagnosis/prior_agreement", DIAGNOSES)
    text = f"Prior and posterior have the same most likely class in {share:.0%} of the groups"
    chance = f"by chance it would be {1 / config.agent.model.classes:.0%}"
    if share < MIN_AGREEMENT:
        return warning(f"{text}; {chance}. The prior does not predict the posterior.")
    return ok(f"{text}; {chance}.")


def _of_continuing(lines: Lines, config: Config) -> Verdict:
    if (count := len(values_of(lines, "diagnosis/cont_predicted"))) < DIAGNOSES:
        return _too_few(count)
    predicted, real = (newest_of(lines, f"diagnosis/cont_{name}", DIAGNOSES) for name in ("predicted", "real"))
    text = f"Predicted {predicted:.3f}, real {real:.3f}"
    if abs(predicted - real) > config.alerts.cont_error:
        return warning(f"{text}: the continue head is wrong.")
    alive = newest_of(lines, "diagnosis/dream_survival_h15", DIAGNOSES)
    if alive < real**15 - config.alerts.survival_loss:
        return warning(f"{text}, but after 15 steps {alive:.0%} of dreams continue and {real**15:.0%} of episodes.")
    return ok(f"{text}: they agree.")


def _of_gradients(lines: Lines, config: Config) -> Verdict:
    names = ("prior", "posterior", "encoder", "decoder", "gru")
    norms = {name: newest_of(lines, f"train/grad_norm/{name}", config.alerts.lines) for name in names}
    if not norms["prior"] > config.alerts.prior_gradient * norms["encoder"]:
        return warning(f"Prior {norms['prior']:.2g}, encoder {norms['encoder']:.2g}: the prior is not trained.")
    if still := [name for name, norm in norms.items() if norm == 0]:
        return warning(f"The gradient is zero in {', '.join(still)}.")
    return ok(
        f"Every part is trained; the smallest norm is {min(norms.values()):.2g}, the prior's {norms['prior']:.2g}."
    )


def _of_entropy(lines: Lines, config: Config) -> Verdict:
    shares = values_of(lines, "train/actor_entropy_share")
    now, updates = shares[-1], updates_of(lines, config)
    if all(share == 1 for share in shares):
        return unclear("Always at the maximum: there is only one action, or the actor is not trained.")
    text = f"{now:.0%} of the maximum entropy, {shares[0]:.0%} at the start"
    if now < config.alerts.entropy_share and judge_learning(lines, config).word != "solved":
        return warning(f"{text}: the policy hardly explores, and has not reached its goal.")
    if updates < min_updates(config):
        return unclear(f"{text}; {updates:,} updates are too few to judge.")
    if now > STILL_RANDOM:
        return warning(f"{text}: after {updates:,} updates the policy is still close to random.")
    return ok(f"{text}: the policy has preferences, and still explores.")


def _of_loss(metric: str, small: float) -> Callable[[Lines, Config], Verdict]:
    """Judges the trend of a world-model loss; below `small` it counts as converged."""

    def judge(lines: Lines, config: Config) -> Verdict:
        values = values_of(lines, metric)
        if len(values) < MIN_LINES:
            return unclear(f"{len(values)} measurements are too few to judge.")
        first, last = values[0], newest_of(lines, metric, max(1, len(values) // 5))
        text = f"{first:.3g} at the start, {last:.3g} at the end"
        if last <= small:
            return ok(f"{text}: converged.")
        if last > RISING * min(values):
            return warning(f"{text}, with a minimum of {min(values):.3g}: it rises.")
        if last < FALLEN * first:
            return ok(f"{text}: it fell.")
        if _trained_before(lines, config):
            return ok(f"{text}: the model was trained before this run.")
        if updates_of(lines, config) < min_updates(config):
            return unclear(f"{text}; {updates_of(lines, config):,} updates are too few to judge.")
        return warning(f"{text}: it does not fall.")

    return judge


def _trained_before(lines: Lines, config: Config) -> bool:
    """Whether the reward loss started below that of a uniform distribution over the bins."""
    return values_of(lines, "train/reward_loss")[0] < FALLEN * math.log(config.agent.model.bins)


def _too_few(count: int) -> Verdict:
    return unclear(f"{count} diagnos{'is is' if count == 1 else 'es are'} too few to judge.")


PANELS: tuple[Panel, ...] = (
    Panel("greedy return", {"return": "eval/return_mean"}, _of_returns),
    Panel(
        "policy entropy, share of maximum",
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
        "value and observed return",
        {"value": "diagnosis/value_mean", "return": "diagnosis/value_return"},
        _of_value,
        ("delusional dreaming",),
    ),
    Panel(
        "world-model loss",
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
        "agreement of prior and posterior, share of groups",
        {"same class": "diagnosis/prior_agreement"},
        _of_agreement,
        share=True,
    ),
    Panel(
        "continue probability",
        {
            "predicted": "diagnosis/cont_predicted",
            "real": "diagnosis/cont_real",
            "dreams after 15 steps": "diagnosis/dream_survival_h15",
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
