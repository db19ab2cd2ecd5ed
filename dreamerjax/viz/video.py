"""Encodes frames as MP4 files, and as GIFs for TensorBoard."""

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

MIN_PIXELS = 256  # smaller frames are enlarged by a whole factor to at least this height and width ...
MAX_PIXELS = 2048  # ... but to at most this


def write_mp4(frames: Iterable[np.ndarray], file: Path, *, frames_per_second: float) -> bool:
    """Writes frames, each [height, width, channels] uint8, as MP4 (H.264) with the ffmpeg of imageio-ffmpeg.

    Frames are streamed one by one: 500 frames of CartPole are 360 MB. Frames of other sizes are resized to the first.

    Returns:
        Whether there were frames; without any, no file is written.

    Raises:
        OSError: the file cannot be written, or ffmpeg is missing; no partial file is left.
    """
    rest = same_size(map(_presentable, frames))
    first = next(rest, None)
    if first is None:
        return False
    with atomic_write(file) as unfinished:
        _encode(first, rest, unfinished, frames_per_second)
    return True


@contextlib.contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Writes a file atomically: yields a temporary path to write to, and renames it to `file` afterwards.

    Raises:
        OSError: the file cannot be written; the message names it. Other exceptions pass through.
    """
    unfinished = file.with_name(f".{file.name}")  # with the same suffix, from which writers infer the format
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
    """Pipes frames [height, width, 3], all of one size, to ffmpeg."""
    height, width = first.shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_second), "-i", "-"]
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", f"file:{file}"]
    program = _ffmpeg()
    command = [program, "-y", "-loglevel", "error", *raw, *h264]
    with tempfile.TemporaryFile() as errors:  # not a pipe, which could fill up and block
        try:
            ffmpeg = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in the terminal does not reach it: the film is finished
            )
        except OSError as error:
            raise OSError(f"{program} cannot be started: {error.strerror}") from error
        try:
            assert ffmpeg.stdin is not None
            with contextlib.suppress(BrokenPipeError), ffmpeg.stdin as frames:  # ffmpeg failed; its message follows
                for frame in itertools.chain([first], rest):
                    frames.write(frame.tobytes())
            ffmpeg.wait()
        finally:
            ffmpeg.kill()  # after an exception
            ffmpeg.wait()
        if ffmpeg.returncode or not file.exists() or not file.stat().st_size:
            errors.seek(0)
            words = " ".join(errors.read(200).decode(errors="replace").split())
            raise OSError(f"ffmpeg ended with {_code(ffmpeg.returncode)}{words and f': {words}'}")


def _code(returncode: int) -> str:
    """The exit code or signal of a process, as text."""
    return f"code {returncode}" if returncode >= 0 else f"signal {-returncode} ({signal.strsignal(-returncode)})"


def _ffmpeg() -> str:
    """The path of ffmpeg.

    Raises:
        FileNotFoundError: ffmpeg is not found.
    """
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error


def _presentable(frame: np.ndarray) -> np.ndarray:
    """An enlarged frame with even height and width, as H.264 with 4:2:0 chroma subsampling requires."""
    frame = enlarged(frame[None])[0]
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")


def first_frame(file: Path) -> bytes:
    """The first frame of a film, as JPEG; empty if the film cannot be read or ffmpeg is missing."""
    jpeg = ["-frames:v", "1", "-q:v", "6", "-f", "image2pipe", "-c:v", "mjpeg", "-"]
    try:
        command = [_ffmpeg(), "-loglevel", "error", "-i", f"file:{file}", *jpeg]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True)
    except OSError:
        return b""
    return b"" if done.returncode else done.stdout


def as_gif(frames: Iterable[np.ndarray], *, frames_per_second: float) -> bytes:
    """Frames, each [height, width, 3] uint8, as an animated GIF; other sizes are resized to the first."""
    first, *rest = (Image.fromarray(frame) for frame in same_size(frames))
    written = io.BytesIO()
    first.save(written, "GIF", save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)
    return written.getvalue()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames [T, height, width, channels] -> [T, ..., 3], at least `MIN_PIXELS` pixels high and wide if that fits.

    One channel becomes grey; of more than three channels, the first three are used.
    """
    frames = frames[..., :1].repeat(3, -1) if frames.shape[-1] < 3 else frames[..., :3]
    factor = min(-(-MIN_PIXELS // min(frames.shape[1:3])), MAX_PIXELS // max(frames.shape[1:3]))
    return frames.repeat(factor, 1).repeat(factor, 2) if factor > 1 else frames
