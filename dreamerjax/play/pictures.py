"""Encodes a moment for the browser: the dreamed and the real image, everything else as JSON."""

import base64
import io
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from dreamerjax.play.tree import Moment

SMALL = 128  # pixels: images up to this size are sent as PNG, larger ones as JPEG at half their size


def pack(header: Mapping[str, Any], dream: bytes, real: bytes) -> bytes:
    """One binary message: the header's length (4 bytes, little endian), the header as JSON, then both images."""
    content = json.dumps({**header, "pictures": [len(dream), len(real)]}, allow_nan=False).encode()
    return struct.pack("<I", len(content)) + content + dream + real


def encoded(picture: np.ndarray | None) -> bytes:
    """An image [height, width, channels] uint8 as PNG if it is small, else as JPEG; empty for None."""
    if picture is None:
        return b""
    written = io.BytesIO()
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] < 3 else np.ascontiguousarray(picture[..., :3]))
    if max(image.size) <= SMALL:
        image.save(written, "PNG", compress_level=1)
    else:
        image.reduce(2).save(written, "JPEG", quality=88)
    return written.getvalue()


def described(moment: Moment) -> dict[str, Any]:
    """The numbers of a moment, as JSON values."""
    output, real = moment.output, moment.real
    return {
        "number": moment.number,
        "parent": moment.parent,
        "step": moment.step,
        "action": None if moment.action is None else rounded(moment.action[0]),
        **strip(moment),
        "entropy": _number(output.policy_entropy),
        "policy_std": rounded(output.policy_std),
        "blind": moment.blind,
        "intends": rounded(output.action[0]),
        "latent": _latent(output.prior_probs, np.asarray(output.state.stoch)[0]),
        "vectors": {name: rounded(x) for name, x in output.obs.items() if x.ndim == 1},
        "real": None
        if real is None
        else {
            "reward": _number(real.rows.reward[0]),
            "ended": bool(real.rows.is_last[0]),
            "failed": bool(real.rows.is_terminal[0]),
            "over": real.over,
            "vectors": {name: rounded(x[0]) for name, x in real.rows.obs.items() if x.ndim == 2},
        },
    }


def strip(moment: Moment) -> dict[str, float | None]:
    """The numbers of a moment in the charts over time."""
    return {name: _number(getattr(moment.output, name)) for name in ("reward", "cont", "value", "surprise")}


def rounded(x: Any) -> list[float]:
    """A vector as a list, rounded to 4 digits."""
    return [round(float(number), 4) for number in np.nan_to_num(x)]


def _number(x: Any) -> float | None:
    value = float(x)
    return round(value, 5) if math.isfinite(value) else None


def _latent(probs: Any, stoch: np.ndarray) -> str:
    """Base64 of [S, K] bytes: prior probability in the upper four bits, the sampled class in the lower."""
    levels = np.round(15 * np.clip(probs, 0, 1)).astype(np.uint8) * 16 + (stoch > 0.5).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode()
