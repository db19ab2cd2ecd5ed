"""Labels in the page, for environments without labels: actions, numbers of the state, end of an episode."""

from collections.abc import Mapping, Sequence

# Environment -> a name for each discrete action, or for each number of the action. From Gymnasium's documentation.
ACTIONS: Mapping[str, Sequence[str]] = {
    "gym:CartPole-v1": ["push left", "push right"],
    "gym:MountainCar-v0": ["push left", "coast", "push right"],
    "gym:MountainCarContinuous-v0": ["push"],
    "gym:Acrobot-v1": ["torque −", "no torque", "torque +"],
    "gym:Pendulum-v1": ["torque"],
    "gym:LunarLander-v3": ["nothing", "left engine", "main engine", "right engine"],
    "gym:LunarLanderContinuous-v3": ["main engine", "side engines"],
    "gym:BipedalWalker-v3": ["hip 1", "knee 1", "hip 2", "knee 2"],
    "gym:CarRacing-v3": ["steer", "accelerate", "brake"],
    "gym:FrozenLake-v1": ["left", "down", "right", "up"],
}
# Environment -> names of the numbers of its state.
NUMBERS: Mapping[str, Sequence[str]] = {
    "gym:CartPole-v1": ["cart position, m", "cart speed, m/s", "pole angle, rad", "pole speed, rad/s"],
    "gym:Pendulum-v1": ["cos of angle", "sin of angle", "speed, rad/s"],
    "gym:MountainCar-v0": ["position", "speed"],
    "gym:MountainCarContinuous-v0": ["position", "speed"],
    "gym:Acrobot-v1": ["cos of angle 1", "sin of angle 1", "cos of angle 2", "sin of angle 2", "speed 1", "speed 2"],
}
# Environment -> the condition that ends an episode.
ENDS: Mapping[str, str] = {
    "gym:CartPole-v1": "The pole leans by 12°, or the cart is 2.4 m away.",
}


def labels_for(env_id: str, own_names: Sequence[str], size: int) -> dict[str, object]:
    """The labels for an environment.

    Args:
        env_id: the environment, `gym:CartPole-v1`.
        own_names: the environment's names for the numbers of an action; may be empty.
        size: A, the numbers of an action.

    Returns:
        `names` of actions [A], `numbers`: names of the state's numbers, `ends`: the condition that ends an episode. The
        last two may be empty.
    """
    known = ACTIONS.get(env_id, ())
    names = next((names for names in (known, own_names) if len(names) == size), None)
    return {
        "names": list(names) if names is not None else [f"action {i + 1}" for i in range(size)],
        "numbers": list(NUMBERS.get(env_id, ())),
        "ends": ENDS.get(env_id, ""),
    }
