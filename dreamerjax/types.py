"""All array containers shared between files, with their shapes. Read this first.

Letters for sizes (N also stands for any number of rows):

    B batch (sequences)        T time steps in replay       H imagined steps
    N = T*B imagination starts D deterministic units        S latent groups
    K classes per group        F = D + S*K features         E embedding
    A action (all its parts)   M two-hot bins               G blocks of the block GRU
    U updates in one dispatch

Time is the leading axis. Row t of an episode contains what is known on *arrival* at step t:

    t              0       1       2      ...   L
    obs            o_0     o_1     o_2          o_L
    prev_action    0       a_0     a_1          a_{L-1}   the action that led here
    reward         0       r_1     r_2          r_L       the reward for arriving here
    is_first       1       0       0            0
    is_last        0       0       0            1         the episode ends here, for any cause
    is_terminal    0       0       0            0 or 1    ... because the task ended, not a time limit
"""

from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import numpy as np

Array = jax.Array
PRNGKey = jax.Array
Device = Any  # one of `jax.devices()`
Variables = Any  # a pytree of parameters, as flax.linen makes it
Metrics = dict[str, Array]  # name -> scalar []


class ObsSpec(NamedTuple):
    """One observation key: what the encoder and the decoder need to know of it.

    A vector is float32; an image is uint8 (0 ... 255) all the way from the environment to the device; integers are
    uint8 or int32, each one of 0 ... classes - 1.
    """

    name: str
    shape: tuple[int, ...]  # of one observation, without batch and time: (size,), (height, width, channels), or any
    classes: int = 0  # of integers, which may have any shape; 0: a vector or an image

    @property
    def is_image(self) -> bool:
        """Whether it is an image."""
        return len(self.shape) == 3 and not self.classes

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector of real numbers."""
        return len(self.shape) == 1 and not self.classes

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers in `Rows`, in the replay and in `Batch`."""
        if self.classes:
            return np.dtype(np.uint8 if self.classes <= 256 else np.int32)
        return np.dtype(np.uint8 if self.is_image else np.float32)


class ActionSpec(NamedTuple):
    """One part of the action as the agent sees it: a choice, or a vector in -1 ... 1."""

    kind: Literal["discrete", "continuous"]
    size: int  # number of choices, or length of the vector

    @property
    def outputs(self) -> int:
        """What the actor puts out for it: a logit for each choice, or means and standard deviations."""
        return self.size if self.kind == "discrete" else 2 * self.size


class Spaces(NamedTuple):
    """Everything that the agent knows about an environment in advance."""

    obs: tuple[ObsSpec, ...]
    actions: tuple[ActionSpec, ...]  # parts that are chosen together, independently of each other

    @property
    def action_size(self) -> int:
        """A, the length of an action: all parts side by side, choices as one-hot."""
        return sum(part.size for part in self.actions)


class Rows(NamedTuple):
    """One step of all environment copies, on arrival (see the picture above), as numpy arrays on the host."""

    obs: dict[str, np.ndarray]  # name -> [num_envs, ...], dtypes as in ObsSpec
    prev_action: np.ndarray  # [num_envs, A] float32
    reward: np.ndarray  # [num_envs] float32
    is_first: np.ndarray  # [num_envs] bool
    is_last: np.ndarray  # [num_envs] bool
    is_terminal: np.ndarray  # [num_envs] bool


@flax.struct.dataclass
class StoredLatent:
    """A latent state as the replay keeps it, small: D + S/2 numbers of two bytes for each row."""

    deter: Array  # [..., D] bfloat16, flat
    stoch: Array  # [..., S] uint8, class + 1 of each group; 0: none, as in the zero state


@flax.struct.dataclass
class Batch:
    """Replayed rows. Continuous actions are stored as they were sampled; the environment clips them to its bounds."""

    obs: dict[str, Array]  # name -> [T, B, ...], dtypes as in ObsSpec
    prev_action: Array  # [T, B, A]
    reward: Array  # [T, B]
    is_first: Array  # [T, B] bool
    is_last: Array  # [T, B] bool
    is_terminal: Array  # [T, B] bool
    context: StoredLatent | None = None  # [B, ...] of the row before each window; None: windows start from zero


@flax.struct.dataclass
class LatentState:
    """The model's state, with time in front where there are several steps: [T, B, D] and [T, B, S, K]."""

    deter: Array  # [B, D] recurrent part
    stoch: Array  # [B, S, K] one-hot samples

    def __getitem__(self, t: Any) -> "LatentState":
        """The states at step t, of states with time in front."""
        return jax.tree.map(lambda x: x[t], self)

    __iter__ = None  # a slip: steps are counted, `range(len(...))`


@flax.struct.dataclass
class Posterior:
    """What `observe` made of a batch."""

    states: LatentState  # [T, ...] of B sequences
    post_logits: Array  # [T, B, S, K] after seeing the observation
    prior_logits: Array  # [T, B, S, K] before seeing it


@flax.struct.dataclass
class Trajectory:
    """Dreams to learn from: index 0 is the start, index h the state after h imagined actions."""

    features: Array  # [H, N, F] of the states in which an action is taken
    action: Array  # [H, N, A] action[h] is taken in state h
    reward: Array  # [H+1, N] predicted reward of arriving in state h
    cont: Array  # [H+1, N] predicted probability that the episode goes on, times the discount
    value: Array  # [H+1, N] the fast critic's value of state h
    slow_value: Array  # [H+1, N] the slow critic's


@flax.struct.dataclass
class DreamTargets:
    """What actor and critic are trained towards in each of the first H states of a dream; constants."""

    returns: Array  # [H, N] lambda returns
    advantage: Array  # [H, N] (returns - value) / return scale
    weight: Array  # [H, N] probability that the dream is still going on, discounted
    slow_value: Array  # [H, N]


@flax.struct.dataclass
class ReturnScale:
    """Running percentiles of the imagined returns; the actor's loss is divided by max(1, high - low)."""

    low: Array  # []
    high: Array  # []


@flax.struct.dataclass
class Knobs:
    """The scalars that a population may vary. They are data, so `vmap(train_step)` trains a population.

    Each field of `Params` has its `<field>_learning_rate` here.
    """

    world_model_learning_rate: Array  # []
    actor_learning_rate: Array  # []
    critic_learning_rate: Array  # []
    entropy_scale: Array  # []
    discount: Array  # [] 1 - 1 / discount_horizon
    return_lambda: Array  # []
    cont_discount: Array  # [] the discount that the continue head has learned: another one where it is frozen


@flax.struct.dataclass
class Params:
    """One field for each network that is trained separately: parameters, or optimizer states."""

    world_model: Variables
    actor: Variables
    critic: Variables


@flax.struct.dataclass
class TrainState:
    """Everything that an update reads and writes."""

    step: Array  # [] int32 number of updates made
    params: Params
    slow_critic: Variables  # moving average of params.critic
    opt_state: Params  # optimizer state of each field of Params
    return_scale: ReturnScale
    knobs: Knobs
    key: PRNGKey


@flax.struct.dataclass
class PolicyState:
    """What the agent remembers between two environment steps."""

    latent: LatentState  # of B sequences
    prev_action: Array  # [B, A]
