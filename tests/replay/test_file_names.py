"""Any text as part of a file's name."""

import pytest

from dreamerjax.replay.file_names import file_name, text_of

NAMES = [
    *("a/b", "../x", "", " ", ".", "..", "/abs", "ü", "dream", "a.b", "state", "<b>", "con:aux?*", "a\\b", "a\nb"),
    *("%2F", "~", "_", "[red]", "nul\0", "|", '"', "$\\frac$", "\N{CJK UNIFIED IDEOGRAPH-89C6}"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_text_is_a_name_and_the_same_again(tmp_path, name):
    file = tmp_path / f"x_{file_name(name)}.mp4"
    file.touch()
    (found,) = tmp_path.iterdir()
    assert text_of(found.stem.removeprefix("x_")) == name
    assert not set(file_name(name)) & set('<>:"/\\|?* \n\0'), "what no system takes"


@pytest.mark.parametrize("letter", ["n", "ü", "/", "\N{CJK UNIFIED IDEOGRAPH-89C6}"])
@pytest.mark.parametrize("length", [50, 190, 200, 201, 300, 301, 5000])
def test_a_long_text_is_cut(tmp_path, letter, length):
    names = [letter * length, letter * (length - 1) + "a", letter * (length - 1) + "b"]
    files = [tmp_path / f"{1234:010d}_dream_{file_name(name)}.mp4" for name in names]
    for file, name in zip(files, names, strict=True):
        file.touch()
        kept, _, _ = text_of(file.stem.removeprefix("0000001234_dream_")).partition("~")
        assert kept
        assert name.startswith(kept)
    assert len(set(files)) == 3


def test_plain_names_stay_as_they_are():
    assert file_name("obs.left_camera-2") == "obs.left_camera-2"
