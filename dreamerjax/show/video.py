"""Moving pictures as files: MP4 to look at, GIF for TensorBoard."""

import io
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

SMALLEST = 256  # pixels: smaller pictures are enlarged, each pixel a square, so that one can see them


def write_mp4(frames: np.ndarray, file: Path, *, frames_per_second: float) -> None:
    """Writes frames [T, height, width, 3] uint8 as MP4 (H.264), through the ffmpeg that comes with imageio-ffmpeg.

    Raises:
        OSError: the file cannot be written.
    """
    frames = enlarged(frames)
    # H.264 halves the resolution of colours: sides must be even.
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_second), "-i", "-"]
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", str(file)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *raw, *h264]
    made = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if made.returncode:
        raise OSError(f"{file} could not be written: {made.stderr.decode(errors='replace').strip()}")


def first_frame(file: Path) -> bytes:
    """The first picture of a film, as JPEG; nothing if it cannot be read."""
    jpeg = ["-frames:v", "1", "-q:v", "6", "-f", "image2pipe", "-c:v", "mjpeg", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(file), *jpeg]
    return subprocess.run(command, capture_output=True, check=False).stdout


def as_gif(frames: np.ndarray, *, frames_per_second: float) -> bytes:
    """Frames [T, height, width, 3] uint8 as an animated GIF."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    written = io.BytesIO()
    first.save(written, "GIF", save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)
    return written.getvalue()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames [T, height, width, channels] -> [T, ..., 3], at least `SMALLEST` pixels high and wide.

    One channel is shown as grey; of more than three, the first three.
    """
    frames = frames[..., :1].repeat(3, -1) if frames.shape[-1] < 3 else frames[..., :3]
    factor = -(-SMALLEST // min(frames.shape[1:3]))
    return frames.repeat(factor, 1).repeat(factor, 2)
