"""The context of windows: latent states are stored with their rows, refreshed, and forgotten with them."""

import chex
import jax
import ml_dtypes
import numpy as np
import pytest

from dreamerjax.types import PolicyState, StoredLatent
from tests.replay.rows import (
    SPACES,
    WITH_LATENTS,
    expected_context,
    latent,
    make,
    numbered_rows,
    numbers,
    replay_with_latents,
)


@pytest.mark.parametrize("steps", [9, 20, 33], ids=["not yet full", "just full", "wrapped"])
def test_a_window_comes_with_the_latent_state_of_the_row_before_it(steps):
    batch = replay_with_latents(steps).sample(50, 4, 3)
    assert batch.context is not None
    chex.assert_trees_all_equal(batch.context, expected_context(batch))
    oldest = max(0, steps - 20)
    first = numbers(batch)[0][:, 0]
    assert (first.min(), first.max()) == (oldest + 1, steps - 4)  # every window that has a row before it
    shapes = replay_with_latents(0).batch_shapes(50, 4, 3)
    assert shapes == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def test_a_row_without_a_latent_state_yet_counts_as_the_zero_state():
    replay = make(SPACES, num_envs=1, capacity=8, seed=0, context=WITH_LATENTS)
    for time in range(12):  # the ring turns: what an overwritten row had is forgotten
        replay.add(numbered_rows(time, 1))
        if time < 8:
            replay.keep_latent(PolicyState(latent(time, 1), None))
    assert not replay.can_sample(8)
    batch = replay.sample(100, 3, 1)
    first = numbers(batch)[0][0, 0]
    assert batch.context is not None
    known = np.asarray(batch.context.stoch)[0].any(-1)
    np.testing.assert_array_equal(known, first - 1 < 8)
    assert known.any()
    assert not known.all()


def test_refreshed_latent_states_are_those_of_the_next_draw_but_one():
    replay = replay_with_latents(15)
    draws = [replay.sample(30, 4, 2)]
    for number in (1, 2):
        step, copy = numbers(draws[-1])
        marks = StoredLatent(
            deter=np.full((*step.shape, 6), 1000.0 * number, ml_dtypes.bfloat16),
            stoch=np.full((*step.shape, 3), number, np.uint8),
        )
        replay.refresh(marks)
        draws.append(replay.sample(30, 4, 2))
    assert draws[1].context is not None
    assert draws[2].context is not None
    chex.assert_trees_all_equal(draws[1].context, expected_context(draws[1]))  # they were still under way
    first_draw = {(s, c) for s, c in zip(*(x.ravel() for x in numbers(draws[0])), strict=True)}
    step, copy = (number[:, 0].ravel() for number in numbers(draws[2]))
    refreshed = np.array([(s - 1, c) in first_draw for s, c in zip(step, copy, strict=True)])
    deter = np.asarray(draws[2].context.deter, np.float32).reshape(-1, 6)
    expected = np.asarray(expected_context(draws[2]).deter, np.float32).reshape(-1, 6)
    np.testing.assert_array_equal(deter, np.where(refreshed[:, None], np.float32(1000.0), expected))
    assert refreshed.any()
    assert not refreshed.all()


def test_latent_states_of_overwritten_rows_go_nowhere():
    replay = replay_with_latents(20, capacity=40)
    batch = replay.sample(30, 4, 1)
    for time in range(20, 35):
        replay.add(numbered_rows(time, 2))
        replay.keep_latent(PolicyState(latent(time, 2), None))
    shape = numbers(batch)[0].shape
    for _ in range(2):
        replay.refresh(StoredLatent(np.full((*shape, 6), 7, ml_dtypes.bfloat16), np.full((*shape, 3), 1, np.uint8)))
        drawn = replay.sample(200, 4, 1)
    step, _ = numbers(drawn)
    assert drawn.context is not None
    stale = np.asarray(drawn.context.deter, np.float32)[0, :, 0] == 7
    new = step[0, 0] - 1 >= 20  # in slots that the first draw's rows were in before
    assert new.any()
    assert not stale[new].any()
