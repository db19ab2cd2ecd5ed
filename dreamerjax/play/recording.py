"""Saves a recording: a film of dream and real environment side by side, and the trajectory as arrays."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dreamerjax.play.pictures import SMALL
from dreamerjax.play.tree import Moment
from dreamerjax.viz.video import write_mp4

MAX_MOMENTS = 1500
SIDE = 300  # pixels: height of the images in the film
CAPTION = 20  # pixels above them


def save(
    folder: Path,
    name: str,
    moments: Sequence[Moment],
    pictures: Sequence[tuple[bytes, ...]],
    *,
    speed: float,
) -> list[Path]:
    """Writes `name`.npz, and `name`.mp4 if there are images.

    Args:
        folder: created if missing.
        name: of the files.
        moments: T moments, in the order in which they were shown.
        pictures: for each moment, the encoded images of dream and real environment; empty: no image.
        speed: frames per second.

    Returns:
        The files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.npz"]
    np.savez_compressed(files[0], allow_pickle=False, **trajectory(moments))
    film = folder / f"{name}.mp4"
    return [film, *files] if write_mp4(_frames(pictures), film, frames_per_second=speed) else files


def trajectory(moments: Sequence[Moment]) -> dict[str, Any]:
    """Arrays [T, ...] by name: `action` (NaN at the start of the dream), `reward`, `dream.NAME`, `real.NAME`, ..."""
    first = moments[0].output
    nothing = np.full(first.action.shape[1:], np.nan, np.float32)
    arrays = {
        "step": np.array([moment.step for moment in moments]),
        "number": np.array([moment.number for moment in moments]),
        "parent": np.array([-1 if moment.parent is None else moment.parent for moment in moments]),
        "action": np.stack([nothing if moment.action is None else moment.action[0] for moment in moments]),
        **{
            name: np.array([getattr(moment.output, name) for moment in moments])
            for name in ("reward", "cont", "value", "surprise", "policy_entropy")
        },
        **{
            f"dream.{name}": np.stack([np.asarray(moment.output.obs[name]) for moment in moments]) for name in first.obs
        },
    }
    if all(moment.real is not None for moment in moments):
        real = [moment.real.rows for moment in moments if moment.real is not None]
        arrays |= {f"real.{name}": np.stack([rows.obs[name][0] for rows in real]) for name in first.obs}
        arrays |= {"real_reward": np.array([rows.reward[0] for rows in real])}
        arrays |= {"real_ended": np.array([rows.is_last[0] for rows in real])}
    return arrays


def _frames(pictures: Iterable[Sequence[bytes]]) -> Iterator[np.ndarray]:
    """The frames of the film, for moments with an image."""
    return (frame for shown in pictures if (frame := _side_by_side(shown)) is not None)


def _side_by_side(pictures: Sequence[bytes]) -> np.ndarray | None:
    shown = [_titled(title, picture) for title, picture in zip(("dream", "reality"), pictures, strict=True) if picture]
    if not shown:
        return None
    gap = np.full((len(shown[0]), 8, 3), 128, np.uint8)
    return np.concatenate([shown[0], gap, shown[1]], axis=1) if len(shown) == 2 else shown[0]


def _titled(title: str, picture: bytes) -> np.ndarray:
    """An RGB image `SIDE` pixels high, below its title; small images are enlarged without smoothing."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    how = Image.Resampling.NEAREST if max(image.size) <= SMALL else Image.Resampling.BILINEAR
    image = image.resize((round(image.width * SIDE / image.height), SIDE), how)
    page = Image.new("RGB", (image.width, CAPTION + SIDE), "white")
    page.paste(image, (0, CAPTION))
    ImageDraw.Draw(page).text((8, 4), title, fill="black", font_size=12)
    return np.asarray(page)
