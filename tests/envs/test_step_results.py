"""What `step` and `reset` may return: what is accepted, what is reported once, and what stops a run."""

import re

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError
from dreamerjax.envs.serial import TRIES, SerialVectorEnv
from tests.envs.odd_envs import LEFT, VECTOR, Counting, played, serial

# Observations outside their space


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (VECTOR, [0, 1.5, 0], "number 1 is 1.5, declared -1 to 1"),
        (VECTOR, [-3e30, 0, 0], "number 0 is -3e+30, declared -1 to 1"),
        (Box(0, 1, (2, 2)), np.full((2, 2), 2.0), "number 0, 0 is 2, declared 0 to 1"),
        (Box(np.float32([0, -np.inf]), np.float32([np.inf, 0])), [-1, -1], "number 0 is -1, declared 0 to"),
        (Box(-1, 1, ()), 7.0, "outside the bounds of its space: 7, declared -1 to 1"),
        (Box(0, 100, (3,), np.int64), [0, 101, 0], "number 1 is 101, declared 0 to 100"),
        (Box(0, 100, (3,), np.uint8), np.uint8([0, 0, 200]), "number 2 is 200"),
    ],
    ids=str,
)
def test_a_finite_number_outside_its_bounds_is_stored_reported_once_and_counted(space, value, expected):
    env = serial(Counting(observation_space=space, see=lambda time: np.asarray(value)))
    seen = played(env, steps=30)
    np.testing.assert_allclose(seen.last.obs["state"][0], np.ravel(value), rtol=1e-6)
    assert sum(event.outside for event in seen.events) == 31
    (note,) = seen.notes
    assert expected in note
    assert note.startswith("module:Env: the observation 'state' is outside the bounds")
    assert played(env, steps=30).notes == [], "once"


def test_each_observation_is_reported_separately():
    spaces = Dict({"arm": Dict({"joints": VECTOR}), "speed": Box(0, 1, (1,))})
    value = {"arm": {"joints": np.full(3, 2.0)}, "speed": np.array([-1.0])}
    seen = played(serial(Counting(observation_space=spaces, see=lambda time: value)), steps=3)
    assert [re.findall("'(.*)'", note) for note in seen.notes] == [["arm.joints"], ["speed"]]


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (VECTOR, [0, np.nan, 0], "is not finite"),
        (VECTOR, [0, np.inf, 0], "is not finite"),
        (VECTOR, [0, 0], "has shape (2,), expected (3,)"),
        (VECTOR, None, "is None, expected (3,)"),
        (VECTOR, ["a", "b", "c"], "expected numbers"),
        (Discrete(3), 3, "is outside its space: 3"),
        (Discrete(3, start=-1), -2, "is outside its space: -2"),
        (MultiBinary(2), np.array([0, 2]), "is outside its space"),
        (Box(0, 2, (6, 7), np.uint8), np.full((6, 7), 3, np.uint8), "is outside its space"),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_bad", ["stop", "skip-episode"])
def test_invalid_observations_stop_the_run_or_skip_the_episode(space, value, expected, on_bad):
    good = space.sample()
    env = serial(
        Counting(observation_space=space, see=lambda time: value if time == 4 else good), on_bad_observation=on_bad
    )
    if on_bad == "stop":
        with pytest.raises(EnvError, match=re.escape(expected)) as caught:
            played(env, steps=9)
        assert "(copy 0, step 4)" in str(caught.value)
        return
    seen = played(env, steps=9)
    assert [event.interrupted for event in seen.events if expected in event.interrupted]
    assert [int(row.is_first[0]) for row in seen.rows] == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_skipping_stops_after_ten_episodes_without_a_valid_step():
    env = serial(Counting(pay=None), on_bad_observation="skip-episode")
    env.reset()
    with pytest.raises(EnvError, match="the reward is None"):  # noqa: PT012  the steps before are part of it
        for _ in range(TRIES + 1):
            env.step(LEFT)


# Rewards, flags, infos and metrics


@pytest.mark.parametrize(
    "reward",
    [
        1,
        True,
        [1.0],
        (1,),
        np.array([1.0]),
        np.array([[1.0]]),
        np.float16(1),
        np.int8(1),
        np.array(1),
        np.array([True]),
    ],
    ids=repr,
)
def test_a_reward_is_one_number_in_any_container(reward):
    assert played(serial(Counting(pay=reward))).last.reward.tolist() == [1.0]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (None, "the reward is None, expected one number"),
        ("1.0", "the reward is '1.0', expected one number"),
        ([1.0, 2.0], "the reward is [1.0, 2.0], expected one number"),
        ([], "the reward is [], expected one number"),
        ({"task": 1.0}, "the reward is {'task': 1.0}, expected one number"),
        (1j, "the reward is 1j, expected one number"),
        ([None], "the reward is [None], expected one number"),
        (np.nan, "the reward is not finite: nan"),
        ([-np.inf], "the reward is not finite: -inf"),
    ],
    ids=repr,
)
def test_errors_name_invalid_rewards_and_the_step(reward, expected):
    with pytest.raises(EnvError, match=re.escape(f"module:Env: {expected} (copy 0, step 1).")):
        played(serial(Counting(pay=reward)))


@pytest.mark.parametrize("flag", [True, 1, 1.0, np.True_, np.array(True), np.array([1]), [True]], ids=repr)
def test_a_flag_is_true_or_false_in_any_container(flag):
    row = played(serial(Counting(truncated=flag, terminated=np.array([False])))).last
    assert (row.is_last.tolist(), row.is_terminal.tolist()) == ([True], [False])


@pytest.mark.parametrize("flag", [None, "no", 2, np.nan, [True, False], np.array([])], ids=repr)
def test_errors_name_invalid_flags(flag):
    with pytest.raises(EnvError, match=r"`step` returned .* as terminated, expected true or false \(copy 0, step 1\)"):
        played(serial(Counting(terminated=flag)))


@pytest.mark.parametrize("info", [None, {}, [], "text"], ids=repr)
def test_an_info_that_is_no_dictionary_is_ignored(info):
    assert played(serial(Counting(info=info)), steps=9).last.is_last.all()


class OldApi(Counting):
    """Gym's API before 2022."""

    late = False

    def reset(self):
        self.time = 0
        return np.zeros(3, np.float32)

    def step(self, action):
        self.time += 1
        done = self.time == 9
        return (
            np.full(3, self.time, np.float32),
            [1.0],
            done,
            {"TimeLimit.truncated": True} if self.late and done else {},
        )


@pytest.mark.parametrize("late", [False, True])
def test_the_old_api_is_accepted_and_reported_once(late):
    env = serial(OldApi(late=late))
    seen = played(env, steps=29)
    assert [row.is_first[0] for row in seen.rows] == [True, *[False] * 9] * 3
    assert [row.is_last[0] for row in seen.rows] == [*[False] * 9, True] * 3
    assert [row.is_terminal[0] for row in seen.rows] == [*[False] * 9, not late] * 3
    expected = ["takes no seed", "`reset` returns only the observation", "`step` returns four values"]
    assert [word in note for word, note in zip(expected, seen.notes, strict=True)] == [True] * 3


@pytest.mark.parametrize("given", [None, 3, (1, 2, 3), (1, 2, 3, 4, 5, 6), np.zeros(3)], ids=repr)
def test_errors_name_invalid_results_of_step(given):
    class Odd(Counting):
        def step(self, action):
            return given

    with pytest.raises(EnvError, match=r"module:Env: `step` returned .*, expected \(observation, reward, terminated"):
        played(serial(Odd(), on_bad_observation="skip-episode"))


def test_the_dictionary_in_a_pair_of_observations_is_not_an_info():
    space = Tuple([VECTOR, Dict({"button": Discrete(2)})])
    pair = (np.zeros(3, np.float32), {"button": 1})
    for reset in (lambda: (pair, {}), lambda: pair):
        env = Counting(observation_space=space, see=lambda time: pair)
        env.reset = lambda seed=None, options=None, reset=reset: reset()
        assert serial(env).reset().obs["1.button"].tolist() == [1]


@pytest.mark.parametrize(
    ("metrics", "kept", "expected"),
    [
        ({"score": 3, "flag": True, "array": np.array([2.0])}, {"score": 3.0, "flag": 1.0, "array": 2.0}, ""),
        ({"score": "high", "n": 1}, {"n": 1.0}, "'score' ('high', not a number)"),
        (
            {"score": None, "curve": [1, 2], "n": 1},
            {"n": 1.0},
            "'score' (None, not a number), 'curve' ([1, 2], not a number)",
        ),
        ({"return": 5, "n": 1}, {"n": 1.0}, "'return' (reserved name)"),
        ([1, 2], {}, 'info["metrics"] is [1, 2], expected a mapping of names to numbers'),
        (None, {}, ""),
    ],
    ids=str,
)
def test_metrics_that_are_no_numbers_are_ignored_and_reported_once(metrics, kept, expected):
    env = serial(Counting(info={"metrics": metrics}))
    seen = played(env, steps=19)
    assert [dict(event.metrics) for event in seen.events if event.metrics] == [kept] * 2 * bool(kept)
    assert len(seen.notes) == bool(expected)
    assert expected in "".join(seen.notes)


def test_end_episodes():
    env = SerialVectorEnv(EnvConfig(id="m:E"), num_envs=3, seed=0, envs=[Counting() for _ in range(3)])
    action = LEFT.repeat(3, 0)
    env.reset()
    env.step(action)
    env.end_episodes(np.array([False, True, False]))
    rows = env.step(action)
    assert rows.is_first.tolist() == [False, True, False]
    assert rows.obs["state"][:, 0].tolist() == [2, 0, 2]
