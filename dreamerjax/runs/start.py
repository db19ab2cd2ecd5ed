"""The settings at the start of a run: from its folder, its parent run or its environment."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from dreamerjax.config import Config, ConfigError, EnvConfig, family_key, flatten
from dreamerjax.envs import EnvInfo
from dreamerjax.runs.presets import Recipe, name_of, read_env, takes_recipe
from dreamerjax.runs.run_folder import RunFolderError, different_keys
from dreamerjax.runs.settings import BUDGET, Layer, combine, env_of

# Settings of a run that do not change how it learns: a fork does not inherit them.
OWN = ("seed", *BUDGET, "agent.precision", "train.collection", "train.deterministic")
OWN_ROOMS = ("log.",)
GOAL = "env.solve_return"


class Start(NamedTuple):
    """The settings of a run, and where they come from."""

    config: Config
    told: tuple[str, ...] = ()  # lines to print


class Parent(NamedTuple):
    """The run that a fork starts from."""

    name: str  # its folder
    config: Config

    def check(self, config: Config) -> None:
        """Makes sure that a run with these settings can use its weights.

        Raises:
            RunFolderError: they are of another environment or architecture.
        """
        if different := different_keys(family_key(self.config), family_key(config)):
            raise RunFolderError(
                f"--init-from {self.name} has another environment or architecture: {'; '.join(different)}.\n"
                "Leave out what asks for another one (its settings are taken over), or give another run."
            )


def resumed(stored: Config, asked: Sequence[Layer], name: str) -> Config:
    """The settings of a resumed run: the stored ones, then those given now.

    Args:
        stored: those in its folder.
        asked: the layers of files and flags, later ones win.
        name: of the folder, for errors.

    Raises:
        RunFolderError: the given settings are of another environment or architecture.
        ConfigError: a value is out of range, or there is no such environment.
    """
    env_name, obs = _last(asked, "env.name"), _last(asked, "env.obs")
    env = combine(read_env(env_name, obs)).env if env_name else stored.env
    config = combine([flatten(stored), {"env.id": env.id}, *asked])
    if different := different_keys(family_key(stored), family_key(config)):
        raise RunFolderError(
            f"{name} belongs to another environment or architecture: {'; '.join(different)}.\n"
            "It was not touched. Leave these flags out to resume it, or choose another --run-dir."
        )
    return config


class Beginning:
    """A new run. Its environment is known at once; other settings depend on a look at the environment."""

    def __init__(self, asked: Sequence[Layer], *, recipe: Recipe | None = None, parent: Parent | None = None) -> None:
        """Reads the files of the environment.

        Args:
            asked: the layers of files and flags, later ones win.
            recipe: the layer below them; None: the one that suits the machine.
            parent: a run whose settings are inherited, except `OWN`.

        Raises:
            ConfigError: there is no such environment, or it takes no recipe, or a value of it is out of range.
        """
        self._asked, self._parent = list(asked), parent
        self._obs = _last(asked, "env.obs")
        self._name = _last(asked, "env.name") or (parent.config.env.name if parent else "")
        if not self._name:
            raise ConfigError("No environment: give --env NAME, such as --env cartpole or --env gym:Acrobot-v1.")
        self._takes_recipe = not parent and takes_recipe(self._name)
        if recipe and not self._takes_recipe:
            whose = f"the run {parent.name}" if parent else f"its files ({self._name})"
            raise ConfigError(
                f"--recipe is {recipe}, expected none here: the settings are those of {whose}.\n"
                "Leave --recipe out, and change single settings with flags or --config FILE."
            )
        self._recipe: Recipe | None = recipe
        self.env: EnvConfig = env_of(self._layers("laptop", pixels=None))

    @property
    def needs_platform(self) -> bool:
        """Whether the settings depend on what JAX runs on."""
        return self._takes_recipe and self._recipe is None

    @property
    def deterministic(self) -> bool:
        """The value of `train.deterministic`, which no recipe sets."""
        return bool(_last(self._layers("laptop", pixels=None), "train.deterministic"))

    def settings(self, look: EnvInfo, platform: str) -> Start:
        """The settings, complete and checked.

        Args:
            look: at the environment.
            platform: "cpu", "cuda", ...; only read where `needs_platform`.

        Raises:
            ConfigError: a value is out of range.
            RunFolderError: the parent has another environment or architecture.
        """
        pixels = any(spec.is_image for spec in look.spaces.obs) if self._takes_recipe else None
        recipe: Recipe = self._recipe or ("laptop" if platform == "cpu" else "defaults")
        layers = self._layers(recipe, pixels=pixels)
        said = any(GOAL in layer for layer in layers)
        config = combine([{GOAL: look.goal.value}, *layers])
        if self._parent is not None:
            self._parent.check(config)
        told = [self._recipe_told(recipe, platform, pixels=bool(pixels))] if self._takes_recipe else []
        if look.goal.reason and not said:
            told.append(_goal_told(look))
        if not self._parent and ":" in self._name and (own := name_of(self._name)):
            told.append(f"There are settings for this task: --env {own} takes them.")
        return Start(config, tuple(told))

    def _layers(self, recipe: Recipe, *, pixels: bool | None) -> list[Layer]:
        if self._parent is None:
            return [*read_env(self._name, self._obs, recipe=recipe, pixels=pixels), *self._asked]
        same = self._name == self._parent.config.env.name
        try:
            of_env = read_env(self._name, self._obs)
        except ConfigError:
            if not same:
                raise
            of_env = []  # the parent has all settings
        return [*of_env, _recipe_of(self._parent.config, env=same), *self._asked]

    def _recipe_told(self, recipe: Recipe, platform: str, *, pixels: bool) -> str:
        files = "gym.yaml" + (" and gym.pixels.yaml" if pixels else "")
        what = f"laptop, for environments {'with' if pixels else 'without'} images ({files})"
        if recipe == "defaults":
            what = "defaults (dreamerjax/config/hyperparameters.py)"
        if self._recipe:
            return f"Settings: {what}, chosen by --recipe."
        if recipe == "laptop":
            return f"Settings: {what}, because this is a CPU; --recipe defaults selects a larger model, for a GPU."
        return (
            f"Settings: {what}, because {platform} is used; --recipe laptop selects a small model that learns quickly."
        )


def _recipe_of(config: Config, *, env: bool) -> Layer:
    """The settings that a fork inherits, with or without those of the environment."""
    return {
        key: value
        for key, value in flatten(config).items()
        if key not in OWN and not key.startswith(OWN_ROOMS) and (env or not key.startswith("env."))
    }


def _goal_told(look: EnvInfo) -> str:
    if look.goal.value is None:
        return f"No return counts as solved: {look.goal.reason}. --env.solve-return sets one."
    return (
        f"A mean return of {look.goal.value:g} counts as solved: {look.goal.reason}. --env.solve-return sets another; "
        "none: train on to the end."
    )


def _last(layers: Sequence[Layer], key: str) -> Any:
    return next((layer[key] for layer in reversed(layers) if key in layer), None)
