"""The films of a report: which are shown, and their names."""

from pathlib import Path

from dreamerjax.viz import film
from dreamerjax.viz.film import Filmed, filmed
from dreamerjax.viz.report_media import select_media


def test_films_of_a_few_steps_are_selected_and_the_newest_have_priority(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for step in range(1000, 8000, 1000):
        for name in ("episode.mp4", "dream_scene.mp4", "dream.png"):
            (tmp_path / "videos" / f"{step:010d}_{name}").write_bytes(bytes(300))
    (tmp_path / "videos" / "notes_of_mine.txt").touch()
    films = filmed(tmp_path)
    assert len(films) == 21
    assert films[0] == Filmed(1000, "dream", tmp_path / "videos/0000001000_dream.png")
    shown, left_out = select_media(films)
    assert sorted({one.env_steps for one in shown}) == [1000, 3000, 5000, 7000]
    assert len(shown) == 12
    assert sorted([*shown, *left_out]) == sorted(films)
    shown, _ = select_media(films, max_bytes=1700)  # four in base64
    assert [one.env_steps for one in shown] == [5000, 7000, 7000, 7000]
    assert select_media([]) == ([], [])
    assert filmed(tmp_path / "nowhere") == []


def test_the_film_of_dreamed_states_is_named_as_a_dream() -> None:
    assert film.STATE_DREAM.startswith("dream")
