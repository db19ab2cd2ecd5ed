"""Windows as integers: where they start, and which steps they hold."""

import numpy as np

from dreamerjax.replay.windows import Windows, draw_windows, steps_of


def test_windows_start_at_every_step_that_leaves_room_for_them_and_at_no_other():
    drawn = draw_windows(np.random.default_rng(0), (2000,), oldest=7, steps=6, length=4, num_envs=2)
    assert {(int(first), int(env)) for first, env in zip(*drawn, strict=True)} == {
        (first, env) for first in (7, 8, 9) for env in (0, 1)
    }


def test_the_only_window_is_drawn_always():
    drawn = draw_windows(np.random.default_rng(0), (2, 1, 3), oldest=5, steps=4, length=4, num_envs=1)
    assert drawn.first.shape == drawn.env.shape == (2, 1, 3)
    assert (drawn.first == 5).all()
    assert (drawn.env == 0).all()


def test_time_is_the_axis_before_the_last():
    first = np.array([3, 10])
    assert steps_of(Windows(first, first), 3).tolist() == [[3, 10], [4, 11], [5, 12]]
    assert steps_of(Windows(first[None, None], first[None, None]), 3).tolist() == [[[3, 10], [4, 11], [5, 12]]]
