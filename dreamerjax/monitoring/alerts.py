"""Alerts: known failures detected in a run's metrics, with a description and a remedy.

The rules (rules.py) read only `metrics.jsonl`, so the metrics of a run determine its alerts. A resumed run finds its
earlier alerts again, and `alerts_of` finds the alerts of any run. Thresholds are settings (`alerts.*`).
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dreamerjax.config import Config
from dreamerjax.monitoring.rules import KINDS, RULES, Line

LINES_KEPT = 4096  # newest lines of each kind that rules can read


class Alert(NamedTuple):
    """One recognised failure, at the step at which it was recognised."""

    step: int  # environment steps
    update: int
    name: str  # such as "entropy collapsed"
    message: str  # with numbers
    remedy: str = ""  # what to do, with flags, depending on the run's settings

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class Watch:
    """Checks each line of metrics as it is written; raises an alert once, and again only after it has cleared."""

    def __init__(self, config: Config) -> None:
        """Starts without lines."""
        self._config = config
        self._lines: dict[str, deque[Line]] = {kind: deque(maxlen=LINES_KEPT) for kind in KINDS}
        self._raised: dict[str, Alert] = {}

    @property
    def active(self) -> dict[str, Alert]:
        """Name -> alert, of all raised alerts that have not cleared."""
        return dict(self._raised)

    def see(self, line: Line) -> list[Alert]:
        """Checks the next line of metrics; returns the new alerts."""
        alerts = []
        for kind, metric in KINDS.items():
            if metric not in line:
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
