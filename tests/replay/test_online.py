"""The online queue: every stretch of new rows is replayed soon, once."""

from tests.replay.rows import numbered_rows, numbers, replay_with_latents


def test_every_stretch_of_new_rows_is_in_one_of_the_next_batches_once():
    replay = replay_with_latents(0, num_envs=3, capacity=300, online=4)
    seen = []
    for time in range(60):
        replay.add(numbered_rows(time, 3))
        if replay.can_sample(4) and time % 4 == 3:
            step, copy = numbers(replay.sample(3, 4, 1))
            seen += [(s, c) for s, c in zip(step[0, 0], copy[0, 0], strict=True)]
    # Windows begin at 1, 5, 9, ..., because each needs a row before it; as many come in as one batch holds.
    assert seen == [(start, copy) for start in range(1, 54, 4) for copy in range(3)]
