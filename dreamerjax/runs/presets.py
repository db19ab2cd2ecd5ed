"""Settings of environments and suites, as YAML files of the package or of the user."""

import contextlib
from pathlib import Path
from typing import Literal

from dreamerjax.config import ConfigError
from dreamerjax.envs import SUITES, did_you_mean_id
from dreamerjax.runs.settings import BUDGET, Layer, did_you_mean, read_yaml

PRESETS = Path(__file__).parents[1] / "presets"
CONFIGS = PRESETS / "config"
OWN = Path("experiments") / "envs"  # in the current folder: the user's files
LAPTOP = "gym"  # the file with the settings for a laptop

Recipe = Literal["laptop", "defaults"]


def read_env(
    name: str, obs: str | None = None, *, recipe: Recipe = "laptop", pixels: bool | None = None
) -> list[Layer]:
    """The layers of an environment: the file of its suite, then its own file, then its name.

    Where images are observed, `<suite>.pixels.yaml` and `<name>.pixels.yaml` follow the files of these names.

    Args:
        name: of a file (`<name>.yaml`), or `suite:ID`; a suite may have a file, too.
        obs: the `env.obs` of later layers; None: that of the files.
        recipe: the settings below those of an environment that takes a recipe (`takes_recipe`): those for a laptop, or
            none, which leaves the published ones.
        pixels: whether images are observed; None: where `obs` asks for them.

    Raises:
        ConfigError: there is no such file and the name is not `suite:ID`.
    """
    files, last = _env_files(name)
    if takes_recipe(name):
        files = [*([LAPTOP] if recipe == "laptop" else []), *(file for file in files if file != LAPTOP)]
    plain = [_env_layer(file) for file in files]
    if pixels is None:
        asked = obs or next((layer["env.obs"] for layer in reversed(plain) if "env.obs" in layer), "auto")
        pixels = asked in ("pixels", "both")
    pairs = zip(files, plain, strict=True)
    return [*(part for file, layer in pairs for part in (layer, _env_layer(f"{file}.pixels") if pixels else {})), last]


def takes_recipe(name: str) -> bool:
    """Whether an environment starts from a recipe, the laptop's or the defaults.

    These are Gymnasium's environments without their own file, and the user's own (`module:function`) without a file of
    learning settings. The other suites have such settings.

    Raises:
        ConfigError: as `read_env`.
    """
    files, last = _env_files(name)
    suite = next((layer["env.id"] for layer in (last, *map(_env_layer, files)) if "env.id" in layer), name)
    if suite.partition(":")[0] in SUITES:
        return files == [LAPTOP]
    return not any(_says_how_to_learn(_env_layer(file)) for file in files)


def name_of(env_id: str) -> str | None:
    """The name of a file with settings for this environment, by its `env.id`; the first in alphabetical order."""
    for name, file in _files().items():
        with contextlib.suppress(ConfigError, OSError, UnicodeDecodeError):  # an unrelated file
            # Parsing takes milliseconds: only files that contain the ID are parsed.
            if env_id in file.read_text(encoding="utf-8") and read_yaml(file).get("env.id") == env_id:
                return name
    return None


def _says_how_to_learn(layer: Layer) -> bool:
    return any(key.startswith(("agent.", "train.")) and key not in BUDGET for key in layer)


def _env_files(name: str) -> tuple[list[str], Layer]:
    """The names of an environment's files, the suite's first, some of which may not exist; and the layer of its name.

    Raises:
        ConfigError: there is no such environment.
    """
    if name in _files():
        return [_env_layer(name).get("env.id", "").partition(":")[0], name], {"env.name": name}
    if ":" in name:
        return [name.partition(":")[0]], {"env.name": name, "env.id": name}
    known = [name for name, file in _files().items() if "env.id" in read_yaml(file)]
    meant = did_you_mean(name, known) or did_you_mean_id(name) or f" Known names: {', '.join(known)}."
    suites = ", ".join(f"`{suite}:`" for suite in SUITES if suite != "gym")
    raise ConfigError(
        f"Unknown environment `{name}`.{meant}\nAny Gymnasium id works as `gym:ID`, such as gym:Acrobot-v1; so do "
        f"those of {suites} and your own `module:function`."
    )


def _files() -> dict[str, Path]:
    """Every file by its name, in alphabetical order; the user's files replace those of the package."""
    found = {path.stem: path for folder in (PRESETS, OWN) for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def _env_layer(file: str) -> Layer:
    """The settings of `<file>.yaml`; none if there is no such file."""
    path = _files().get(file)
    return read_yaml(path) if path else {}


def read_config_file(path: Path) -> Layer:
    """The layer of `--config`: a file, or the name of one in the package (`laptop_dmc`).

    Raises:
        ConfigError: as `read_yaml`.
    """
    ready = {file.stem: file for file in sorted(CONFIGS.glob("*.yaml"))}
    if path.exists() or path.suffix:
        return read_yaml(path)
    if str(path) not in ready:
        meant = did_you_mean(str(path), list(ready))
        raise ConfigError(f"There is no file {path}, expected a YAML file or one of {', '.join(ready)}.{meant}")
    return read_yaml(ready[str(path)])
