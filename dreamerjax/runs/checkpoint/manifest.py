"""The manifest of a checkpoint: the format, and size and SHA-256 of every file.

Orbax does not detect a changed byte, so every file is compared with its checksum before use.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import dreamerjax

FORMAT = 1  # of a checkpoint's files
MANIFEST = "MANIFEST.json"


class DamagedError(Exception):
    """Why one checkpoint cannot be used."""


def write_manifest(folder: Path) -> None:
    """Describes every file of the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "dreamerjax": getattr(dreamerjax, "__version__", "unknown"),
        "files": {path.relative_to(folder).as_posix(): _fingerprint(path) for path in files},
    }
    (folder / MANIFEST).write_bytes(_seal(manifest))


def verify(folder: Path, needed: tuple[str, ...]) -> None:
    """Compares files with the manifest.

    Args:
        folder: of the checkpoint.
        needed: beginnings of the names of the files to compare.

    Raises:
        DamagedError: a file is missing, changed or cannot be read, or the format is another one.
    """
    try:
        for name, expected in _read_manifest(folder)["files"].items():
            if not name.startswith(needed):
                continue
            if not (folder / name).is_file():
                raise DamagedError(f"{name} is missing")
            found = _fingerprint(folder / name)
            if found["size"] != expected["size"]:
                raise DamagedError(f"{name} has {found['size']} of {expected['size']} bytes")
            if found != expected:
                raise DamagedError(f"{name} has the wrong checksum")
    except OSError as error:
        raise DamagedError(f"{error.filename or folder} cannot be read: {error.strerror}") from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise DamagedError(f"{MANIFEST} is missing")
    text = (folder / MANIFEST).read_bytes()
    try:
        manifest = json.loads(text)
        manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} does not parse") from error
    if _seal(manifest) != text:
        raise DamagedError(f"{MANIFEST} has the wrong checksum")
    if manifest["format"] != FORMAT:
        raise DamagedError(
            f"its format is {manifest['format']}, expected {FORMAT}: dreamerjax {manifest['dreamerjax']} wrote it"
        )
    return manifest


def _seal(manifest: dict[str, Any]) -> bytes:
    """The manifest as text with its own checksum: any changed byte gives another text."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return (json.dumps(manifest | {"sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}
