"""Watches a run's metrics for failures that have a name, and says so in words.

A rule reads the lines of `metrics.jsonl` and nothing else, so the alerts of a run follow from its metrics: those of a
run that resumes are found again, and `alerts_of` tells those of any finished run. Thresholds are settings (`alerts.*`).
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dreamerjax.config import Config

Line = Mapping[str, Any]  # of metrics.jsonl

LINES_KEPT = 4096  # of one kind: what is older than that is not looked at again
LEAST_CORRELATION = 0.3  # below it, predicted rewards fit nothing yet


class Alert(NamedTuple):
    """One failure that was seen, where it began to show."""

    step: int  # environment steps
    update: int
    name: str  # such as "entropy collapsed"
    message: str  # with numbers

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class Watch:
    """Sees every line of metrics as it is written; an alert is raised once, and again only after it had ceased."""

    def __init__(self, config: Config) -> None:
        """Nothing was seen yet."""
        self._config = config
        self._lines: dict[str, deque[Line]] = {kind: deque(maxlen=LINES_KEPT) for kind in KINDS}
        self._raised: set[str] = set()

    def see(self, line: Line) -> list[Alert]:
        """Takes the next line of metrics; what it shows that was not raised already."""
        alerts = []
        for kind, telltale in KINDS.items():
            if telltale not in line:
                continue
            self._lines[kind].append(line)
            for name, (read, rule) in RULES.items():
                if read != kind:
                    continue
                message = rule(self._lines, self._config)
                if message is None:
                    self._raised.discard(name)
                elif name not in self._raised:
                    self._raised.add(name)
                    alerts.append(Alert(line["step"], line["update"], name, message))
        return alerts


def alerts_of(lines: Iterable[Line], config: Config) -> list[Alert]:
    """All alerts of a run, from its metrics."""
    watch = Watch(config)
    return [alert for line in lines for alert in watch.see(line)]


# A kind of line, and a name that only lines of this kind have.
KINDS = {"train": "train/kl", "diagnosis": "diagnosis/value_bias", "eval": "eval/return_mean"}

Lines = Mapping[str, Sequence[Line]]


def _lately(lines: Sequence[Line], name: str, count: int) -> list[float]:
    """The newest `count` values of a metric; none if there are not so many, so that a rule waits."""
    if len(lines) < count:
        return []
    return [line[name] for line in list(lines)[-count:] if name in line]


def _all_lately(lines: Lines, kind: str, names: Sequence[str], count: int, holds: Callable[..., bool]) -> list[float]:
    """The newest values of the metrics if the condition holds in each of the newest `count` lines; else nothing."""
    columns = [_lately(lines[kind], name, count) for name in names]
    if not all(len(column) == count for column in columns):
        return []
    if not all(holds(*row) for row in zip(*columns, strict=True)):
        return []
    return [column[-1] for column in columns]


def _not_a_number(lines: Lines, config: Config) -> str | None:
    line = lines["train"][-1]
    names = [name for name, value in line.items() if name.startswith("train/") and not math.isfinite(value)]
    return f"{', '.join(names[:3])} is not finite" if names else None


def _prior_without_gradient(lines: Lines, config: Config) -> str | None:
    names = ("train/grad_norm/prior", "train/grad_norm/encoder")
    least = config.alerts.prior_gradient
    found = _all_lately(lines, "train", names, config.alerts.lines, lambda prior, encoder: prior < least * encoder)
    if not found:
        return None
    under = lines["train"][-1].get("train/free_nats_share", math.nan)
    return (
        f"gradient norm {found[0]:.2g}, against {found[1]:.2g} of the encoder; {under:.0%} of the rows are under the "
        "free nats"
    )


def _latents_collapsed(lines: Lines, config: Config) -> str | None:
    alerts, model = config.alerts, config.agent.model
    highest = model.groups * math.log(model.classes)
    found = _all_lately(
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


def _entropy_collapsed(lines: Lines, config: Config) -> str | None:
    least, goal = config.alerts.entropy_share, config.env.solve_return
    found = _all_lately(lines, "train", ["train/actor_entropy_share"], config.alerts.lines, lambda x: x < least)
    score = lines["eval"][-1]["eval/return_mean"] if lines["eval"] else -math.inf
    if not found or (goal is not None and score >= goal):
        return None
    short = "" if goal is None or score == -math.inf else f", with a return of {score:.0f} where {goal:g} is the goal"
    return f"the policy has {found[0]:.1%} of the entropy that it could have{short}"


def _collector_starved(lines: Lines, config: Config) -> str | None:
    most = config.alerts.data_wait_share
    found = _all_lately(lines, "train", ["speed/data_wait_share"], config.alerts.lines, lambda x: x > most)
    return f"{found[0]:.0%} of the time the updates wait for data" if found else None


def _replay_frozen(lines: Lines, config: Config) -> str | None:
    least = config.alerts.stored_share
    found = _all_lately(lines, "train", ["replay/added_share"], config.alerts.lines, lambda x: x < least)
    return f"{found[0]:.0%} of the rows that are collected reach it" if found else None


def _cont_head_wrong(lines: Lines, config: Config) -> str | None:
    names, most = ("diagnosis/cont_predicted", "diagnosis/cont_real"), config.alerts.cont_error
    found = _all_lately(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: abs(x - y) > most)
    return f"it says {found[0]:.2f} where {found[1]:.2f} is right" if found else None


def _dreams_end(lines: Lines, config: Config) -> str | None:
    names, most = ("diagnosis/dream_survival_h3", "diagnosis/cont_real"), config.alerts.survival_loss
    found = _all_lately(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: x < y**3 - most)
    return f"{found[0]:.0%} of them go on after 3 steps, where {found[1] ** 3:.0%} of episodes do" if found else None


def _reward_shifted(lines: Lines, config: Config) -> str | None:
    alerts = config.alerts

    def fits_better(neighbour: float, own: float) -> bool:
        return neighbour > LEAST_CORRELATION and 1 - neighbour < alerts.reward_misfit * (1 - own)

    for where in ("previous", "next"):
        names = (f"diagnosis/reward_correlation_{where}", "diagnosis/reward_correlation")
        found = _all_lately(lines, "diagnosis", names, alerts.diagnoses, fits_better)
        if found:
            return f"they fit the {where} row better than their own (correlation {found[0]:.2f} against {found[1]:.2f})"
    return None


def _world_model_behind(lines: Lines, config: Config) -> str | None:
    names = ("diagnosis/world_model_loss_newest", "diagnosis/world_model_loss_replay")
    most = config.alerts.newest_loss
    found = _all_lately(lines, "diagnosis", names, config.alerts.diagnoses, lambda x, y: x > most * y)
    return f"its loss is {found[0]:.3g} on the newest rows and {found[1]:.3g} on all" if found else None


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


def _change(before: float, now: float) -> float:
    """As a share of what was before; of 1 where that is smaller."""
    return (now - before) / max(abs(before), 1.0)


Rule = Callable[[Lines, Config], str | None]

# Name of the alert -> the kind of line at which its rule is asked, and the rule.
RULES: Mapping[str, tuple[str, Rule]] = {
    "not a number": ("train", _not_a_number),
    "prior receives no gradient": ("train", _prior_without_gradient),
    "latents collapsed": ("train", _latents_collapsed),
    "entropy collapsed": ("train", _entropy_collapsed),
    "collector starved": ("train", _collector_starved),
    "replay frozen": ("train", _replay_frozen),
    "continue head is wrong": ("diagnosis", _cont_head_wrong),
    "dreams end too soon": ("diagnosis", _dreams_end),
    "rewards are shifted": ("diagnosis", _reward_shifted),
    "world model lags behind": ("diagnosis", _world_model_behind),
    "delusional dreaming": ("diagnosis", _delusional_dreaming),
}
