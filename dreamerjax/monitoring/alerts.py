"""Watches a run's metrics for failures that have a name, and says so in words, with what to do.

The rules (rules.py) read the lines of `metrics.jsonl` and nothing else, so the alerts of a run follow from its metrics:
those of a run that resumes are found again, and `alerts_of` tells those of any finished run. Thresholds are settings
(`alerts.*`).
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dreamerjax.config import Config
from dreamerjax.monitoring.rules import KINDS, RULES, Line

LINES_KEPT = 4096  # of one kind: what is older than that is not looked at again


class Alert(NamedTuple):
    """One failure that was seen, where it began to show."""

    step: int  # environment steps
    update: int
    name: str  # such as "entropy collapsed"
    message: str  # with numbers
    remedy: str = ""  # what to do, with the flags to give; it follows from the settings that the run has

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class Watch:
    """Sees every line of metrics as it is written; an alert is raised once, and again only after it had ceased."""

    def __init__(self, config: Config) -> None:
        """Nothing was seen yet."""
        self._config = config
        self._lines: dict[str, deque[Line]] = {kind: deque(maxlen=LINES_KEPT) for kind in KINDS}
        self._raised: dict[str, Alert] = {}

    @property
    def active(self) -> dict[str, Alert]:
        """Name -> alert of what was raised and has not ceased."""
        return dict(self._raised)

    def see(self, line: Line) -> list[Alert]:
        """Takes the next line of metrics; what it shows that was not raised already."""
        alerts = []
        for kind, telltale in KINDS.items():
            if telltale not in line:
                continue
            self._lines[kind].append(line)
            for name, rule in RULES.items():
                if rule.kind != kind:
                    continue
                message = rule.find(self._lines, self._config)
                if message is None:
                    self._raised.pop(name, None)
                elif name not in self._raised:
                    remedy = str(rule.remedy(self._lines, self._config))
                    self._raised[name] = Alert(int(line["step"]), int(line["update"]), name, message, remedy)
                    alerts.append(self._raised[name])
        return alerts


def alerts_of(lines: Iterable[Line], config: Config) -> list[Alert]:
    """All alerts of a run, from its metrics."""
    watch = Watch(config)
    return [alert for line in lines for alert in watch.see(line)]
