"""Moving pictures as files: MP4 to look at, GIF for TensorBoard."""

import contextlib
import io
import itertools
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from dreamerjax.envs.frames import same_size

SMALLEST = 256  # pixels: smaller pictures are enlarged, each pixel a square, so that one can see them ...
LARGEST = 2048  # ... but not beyond this, in either direction


def write_mp4(frames: Iterable[np.ndarray], file: Path, *, frames_per_second: float) -> bool:
    """Writes frames, each [height, width, 3 or so] uint8, as MP4 (H.264), through the ffmpeg of imageio-ffmpeg.

    They go there one by one: 500 frames of CartPole are 360 MB. Frames of another size than the first are
    made to fit it.

    Returns:
        Whether there was any; without one, there is no file.

    Raises:
        OSError: the file cannot be written, or there is no ffmpeg; nothing of it is left.
    """
    rest = same_size(map(_presentable, frames))
    first = next(rest, None)
    if first is None:
        return False
    with whole(file) as unfinished:
        _encode(first, rest, unfinished, frames_per_second)
    return True


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A file that is there whole or not at all: yields where to write it, and gives it its name afterwards.

    Raises:
        OSError: it cannot be written; the message names the file. Other errors of the writer are passed on.
    """
    unfinished = file.with_name(f".{file.name}")  # with the same suffix, which says how to write it
    try:
        yield unfinished
        unfinished.replace(file)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{file} could not be written: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _encode(first: np.ndarray, rest: Iterable[np.ndarray], file: Path, frames_per_second: float) -> None:
    """Lets ffmpeg write frames [height, width, 3], all of one size."""
    height, width = first.shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_second), "-i", "-"]
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", f"file:{file}"]
    program = _ffmpeg()
    command = [program, "-y", "-loglevel", "error", *raw, *h264]
    with tempfile.TemporaryFile() as said:  # no pipe, which would be full at some time
        try:
            ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        except OSError as error:
            raise OSError(f"{program} cannot be started: {error.strerror}") from error
        try:
            assert ffmpeg.stdin is not None
            with contextlib.suppress(BrokenPipeError), ffmpeg.stdin as frames:  # it has given up, and says why
                for frame in itertools.chain([first], rest):
                    frames.write(frame.tobytes())
            ffmpeg.wait()
        finally:
            ffmpeg.kill()  # where an error leads out of here
            ffmpeg.wait()
        if ffmpeg.returncode or not file.exists() or not file.stat().st_size:
            said.seek(0)
            words = " ".join(said.read(200).decode(errors="replace").split())
            raise OSError(f"ffmpeg ended with {_code(ffmpeg.returncode)}{words and f': {words}'}")


def _code(returncode: int) -> str:
    """How a process ended, in words."""
    return f"code {returncode}" if returncode >= 0 else f"signal {-returncode} ({signal.strsignal(-returncode)})"


def _ffmpeg() -> str:
    """The program.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error


def _presentable(frame: np.ndarray) -> np.ndarray:
    """A frame that is large enough to see, with sides that are even: H.264 halves the resolution of colours."""
    frame = enlarged(frame[None])[0]
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")


def first_frame(file: Path) -> bytes:
    """The first picture of a film, as JPEG; nothing if it cannot be read, or there is no ffmpeg."""
    jpeg = ["-frames:v", "1", "-q:v", "6", "-f", "image2pipe", "-c:v", "mjpeg", "-"]
    try:
        command = [_ffmpeg(), "-loglevel", "error", "-i", f"file:{file}", *jpeg]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return b""
    return b"" if done.returncode else done.stdout


def as_gif(frames: Iterable[np.ndarray], *, frames_per_second: float) -> bytes:
    """Frames, each [height, width, 3] uint8, as an animated GIF; those of another size are made to fit the first."""
    first, *rest = (Image.fromarray(frame) for frame in same_size(frames))
    written = io.BytesIO()
    first.save(written, "GIF", save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)
    return written.getvalue()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames [T, height, width, channels] -> [T, ..., 3], at least `SMALLEST` pixels high and wide if that fits.

    One channel is shown as grey; of more than three, the first three.
    """
    frames = frames[..., :1].repeat(3, -1) if frames.shape[-1] < 3 else frames[..., :3]
    factor = min(-(-SMALLEST // min(frames.shape[1:3])), LARGEST // max(frames.shape[1:3]))
    return frames.repeat(factor, 1).repeat(factor, 2) if factor > 1 else frames
