"""Films during a run. They are optional: an error is reported once for each reason, and training continues."""

import contextlib
from collections.abc import Callable

from dreamerjax.envs import VectorEnv
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.runtime.error_text import one_line, without_numbers
from dreamerjax.runtime.memory import give_back_memory
from dreamerjax.training.parts import Parts
from dreamerjax.training.reporter import Films

Film = Callable[[LoadedAgent, VectorEnv | None], Films]


class Filming:
    """Makes films of the agent every `log.video_every` environment steps."""

    def __init__(self, parts: Parts, film: Film | None) -> None:
        """Makes nothing yet; without `film`, never."""
        self._parts, self._film = parts, film if parts.config.log.video_every else None

    def film_if_due(self) -> None:
        """Makes films if enough steps were made since the last ones."""
        parts = self._parts
        if parts.env_steps - parts.counters.filmed_at >= parts.config.log.video_every:
            parts.counters.filmed_at = parts.env_steps
            self.film()
            parts.reporter.enter("training")

    def film(self) -> None:
        """Makes films of the agent now."""
        if self._film is None:
            return
        parts = self._parts
        parts.reporter.enter("filming")
        agent = LoadedAgent(parts.folder.path, parts.config, parts.agent, parts.learner.state, parts.env_steps, ())
        in_training_env = parts.config.eval.in_training_env
        try:
            with parts.collector.lent_env() if in_training_env else contextlib.nullcontext() as lent:
                films = self._film(agent, lent)
            for film in films.made:
                parts.reporter.filmed(film)
            missing = films.missing
        except Exception as error:
            missing = [one_line(error)]
        for why in missing:
            parts.reporter.note_once(f"no film: {without_numbers(why)}", f"No film: {why}")
        give_back_memory()
