"""Moving pictures as files: MP4 to look at, GIF for TensorBoard."""

import io
import itertools
import subprocess
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

SMALLEST = 256  # pixels: smaller pictures are enlarged, each pixel a square, so that one can see them


def write_mp4(frames: Iterable[np.ndarray], file: Path, *, frames_per_second: float) -> bool:
    """Writes frames, each [height, width, 3 or so] uint8, as MP4 (H.264), through the ffmpeg of imageio-ffmpeg.

    They go there one by one: 500 frames of CartPole are 360 MB.

    Returns:
        Whether there was any; without one, there is no file.

    Raises:
        OSError: the file cannot be written.
    """
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        return False
    height, width = _presentable(first).shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_second), "-i", "-"]
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", str(file)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *raw, *h264]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe) as ffmpeg:
        assert ffmpeg.stdin is not None
        try:
            for frame in itertools.chain([first], rest):
                ffmpeg.stdin.write(_presentable(frame).tobytes())
        except BrokenPipeError:
            pass  # it has given up, and says why
        except BaseException:
            ffmpeg.kill()
            raise
        said = ffmpeg.communicate()[1]
    if ffmpeg.returncode:
        raise OSError(f"{file} could not be written: {said.decode(errors='replace').strip()}")
    return True


def _presentable(frame: np.ndarray) -> np.ndarray:
    """A frame that is large enough to see, with sides that are even: H.264 halves the resolution of colours."""
    frame = enlarged(frame[None])[0]
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")


def first_frame(file: Path) -> bytes:
    """The first picture of a film, as JPEG; nothing if it cannot be read."""
    jpeg = ["-frames:v", "1", "-q:v", "6", "-f", "image2pipe", "-c:v", "mjpeg", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(file), *jpeg]
    return subprocess.run(command, capture_output=True, check=False).stdout


def as_gif(frames: Iterable[np.ndarray], *, frames_per_second: float) -> bytes:
    """Frames, each [height, width, 3] uint8, as an animated GIF."""
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
    return frames.repeat(factor, 1).repeat(factor, 2) if factor > 1 else frames
