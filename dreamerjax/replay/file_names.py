"""Converts any text to a part of a file name that works on every system, and back."""

import hashlib
import re
from urllib.parse import quote, unquote

LONGEST = 200  # characters, of the 255 that a system allows


def file_name(text: str) -> str:
    """Part of a file's name for a text: letters, digits, `_.-~` as they are, all else as in an address, `a%2Fb`.

    Different texts get different names. Of a long one there is the beginning, and a checksum.
    """
    name = quote(text, safe="", errors="backslashreplace")
    if len(name) <= LONGEST:
        return name
    checksum = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub('%.?$', '', name[: LONGEST - 9])}~{checksum}"


def text_of(name: str) -> str:
    """The text that `file_name` has made a name of, or the beginning of a long one."""
    return unquote(name, errors="ignore")
