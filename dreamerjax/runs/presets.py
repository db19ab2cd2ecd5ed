"""Settings of environments and their families, which come as YAML files, and of the user's own beside them."""

import contextlib
from pathlib import Path
from typing import Literal

from dreamerjax.config import ConfigError
from dreamerjax.envs import SUITES, did_you_mean_id
from dreamerjax.runs.settings import BUDGET, Layer, did_you_mean, read_yaml

PRESETS = Path(__file__).parents[1] / "presets"
CONFIGS = PRESETS / "config"
OWN = Path("experiments") / "envs"  # in the current folder: files of the user's own
LAPTOP = "gym"  # the file with what suits a laptop

Recipe = Literal["laptop", "published"]


def read_env(
    name: str, obs: str | None = None, *, recipe: Recipe = "laptop", pixels: bool | None = None
) -> list[Layer]:
    """The layers of an environment: what suits its family, then its own file, then its name.

    Where images are seen, `<family>.pixels.yaml` and `<name>.pixels.yaml` come right after the files of these names.

    Args:
        name: of a file (`<name>.yaml`), or `family:ID`; a family may have a file, too.
        obs: the `env.obs` that later layers ask for; None: that of the files.
        recipe: the settings below those of an environment that takes a recipe (`takes_recipe`): those for a laptop, or
            none, which leaves the published ones.
        pixels: whether images are seen; None: where `obs` asks for them.

    Raises:
        ConfigError: there is no such file and the name is no `family:ID`.
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
    """Whether an environment starts from a recipe, the laptop's or the published one.

    These are Gymnasium's without a file of their own, and the user's own (`module:function`), unless a file says how
    they learn; the other families say that themselves.

    Raises:
        ConfigError: as `read_env`.
    """
    files, last = _env_files(name)
    family = next((layer["env.id"] for layer in (last, *map(_env_layer, files)) if "env.id" in layer), name)
    if family.partition(":")[0] in SUITES:
        return files == [LAPTOP]
    return not any(_says_how_to_learn(_env_layer(file)) for file in files)


def name_of(env_id: str) -> str | None:
    """The name that takes settings made for this environment: of a file with its `env.id`, the first by alphabet."""
    for name, file in _files().items():
        with contextlib.suppress(ConfigError, OSError, UnicodeDecodeError):  # a file that nobody asked for
            # Only a file with these letters is worth parsing, which takes milliseconds.
            if env_id in file.read_text(encoding="utf-8") and read_yaml(file).get("env.id") == env_id:
                return name
    return None


def _says_how_to_learn(layer: Layer) -> bool:
    return any(key.startswith(("agent.", "train.")) and key not in BUDGET for key in layer)


def _env_files(name: str) -> tuple[list[str], Layer]:
    """The names of an environment's files, which need not all exist, the family's first; and the layer of its name.

    Raises:
        ConfigError: there is no such environment.
    """
    if name in _files():
        return [_env_layer(name).get("env.id", "").partition(":")[0], name], {"env.name": name}
    if ":" in name:
        return [name.partition(":")[0]], {"env.name": name, "env.id": name}
    known = [name for name, file in _files().items() if "env.id" in read_yaml(file)]
    meant = did_you_mean(name, known) or did_you_mean_id(name) or f" Known names: {', '.join(known)}."
    families = ", ".join(f"`{family}:`" for family in SUITES if family != "gym")
    raise ConfigError(
        f"Unknown environment `{name}`.{meant}\nAny Gymnasium id works as `gym:ID`, such as gym:Acrobot-v1; so do "
        f"those of {families} and your own `module:function`."
    )


def _files() -> dict[str, Path]:
    """Every file by its name, in alphabetical order; the user's own come before those of the package."""
    found = {path.stem: path for folder in (PRESETS, OWN) for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def _env_layer(file: str) -> Layer:
    """The settings of `<file>.yaml`; none if there is no such file."""
    path = _files().get(file)
    return read_yaml(path) if path else {}


def read_config_file(path: Path) -> Layer:
    """The layer of `--config`: of a file, or of one that the package has, by its name (`laptop_dmc`).

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
