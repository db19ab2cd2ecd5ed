"""All hyperparameters, with types and ranges, and the model sizes.

Losses, optimizer and learning rates have the defaults of DreamerV3 (Hafner et al., Nature 2025, and the authors' code).
`docs/algorithm.md` lists the other defaults. The settings of a run have layers, and later layers override earlier ones:
these defaults; the YAML files in `dreamerjax/presets` for the environment's suite and for the environment; any
`--config FILE`; flags such as `--agent.actor.learning-rate 1e-4`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dreamerjax.config.ranges import (
    AboveOne,
    AtLeastTwo,
    BelowOne,
    Fraction,
    NonNegative,
    NonNegativeInt,
    OddInt,
    Positive,
    PositiveInt,
)

Schedule = Literal["constant", "cosine"]


class ModelSize(NamedTuple):
    """The numbers that make a model large or small."""

    deter: int  # D, deterministic units
    hidden: int  # width of every hidden layer
    groups: int  # S, latent groups
    classes: int  # K, classes per group
    blocks: int  # G, blocks of the block GRU
    depth: int  # for images: every stage has a small multiple of it as channels


SIZES: Mapping[str, ModelSize] = {
    # The small one solves classic control on a laptop; the others are the published sizes.
    "300k": ModelSize(deter=256, hidden=64, groups=32, classes=4, blocks=8, depth=4),
    "1m": ModelSize(deter=512, hidden=64, groups=32, classes=4, blocks=8, depth=4),
    "12m": ModelSize(deter=2048, hidden=256, groups=32, classes=16, blocks=8, depth=16),
    "25m": ModelSize(deter=3072, hidden=384, groups=32, classes=24, blocks=8, depth=24),
    "50m": ModelSize(deter=4096, hidden=512, groups=32, classes=32, blocks=8, depth=32),
    "100m": ModelSize(deter=6144, hidden=768, groups=32, classes=48, blocks=8, depth=48),
    "200m": ModelSize(deter=8192, hidden=1024, groups=32, classes=64, blocks=8, depth=64),
    "400m": ModelSize(deter=12288, hidden=1536, groups=32, classes=96, blocks=8, depth=96),
}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. A number that is 0 is taken from `size`."""

    size: Literal["300k", "1m", "12m", "25m", "50m", "100m", "200m", "400m"] = "1m"  # preset of the six numbers below
    deter: PositiveInt = 0  # D, deterministic units
    hidden: PositiveInt = 0  # width of every hidden layer
    groups: PositiveInt = 0  # S, latent groups
    classes: AtLeastTwo = 0  # K, classes per group
    blocks: PositiveInt = 0  # G, blocks of the block GRU; must divide deter
    depth: PositiveInt = 0  # base number of image channels
    vision: Literal["convolutions", "patches"] = "convolutions"  # image encoder and decoder; patches: cheaper, for CPUs
    bins: OddInt = 255  # M, two-hot bins of the reward and critic heads (odd)
    unimix: Fraction = 0.01  # share of the uniform distribution in prior and posterior
    memory: bool = True  # false: the latent state is reset before each real step, to measure the value of memory
    encoder_layers: PositiveInt = 3  # hidden layers of the vector encoder
    decoder_layers: PositiveInt = 3  # hidden layers of the vector decoder
    reward_layers: NonNegativeInt = 1
    cont_layers: NonNegativeInt = 1
    actor_layers: NonNegativeInt = 3
    critic_layers: NonNegativeInt = 3
    prior_layers: NonNegativeInt = 2
    posterior_layers: NonNegativeInt = 1


@dataclass(frozen=True)
class WorldModelConfig:
    """World-model losses and their scales."""

    learning_rate: NonNegative = 4e-5
    free_nats: NonNegative = 1.0  # KL below this is not reduced further
    free_nats_gradient: Literal["clip", "straight_through"] = "clip"  # gradient below free_nats: 0 or unchanged
    reconstruction_scale: NonNegative = 1.0
    reward_scale: NonNegative = 1.0
    cont_scale: NonNegative = 1.0
    dynamics_scale: NonNegative = 1.0
    representation_scale: NonNegative = 0.1


@dataclass(frozen=True)
class ActorConfig:
    """The policy and its exploration."""

    learning_rate: NonNegative = 4e-5
    entropy_scale: NonNegative = 3e-4
    entropy_schedule: Schedule = "constant"
    entropy_final_fraction: Fraction = 0.01  # cosine: of entropy_scale, after `entropy_decay_updates`
    entropy_decay_updates: PositiveInt = 100_000  # cosine: updates of any kind from entropy_scale to its final fraction
    unimix: Fraction = 0.0  # share of the uniform distribution in a discrete policy (the paper has 0.01)
    loss_scale: NonNegative = 1.0


@dataclass(frozen=True)
class CriticConfig:
    """The value function."""

    learning_rate: NonNegative = 4e-5
    slow_rate: Fraction = 0.02  # the slow critic moves by this share of the way after each update
    slow_scale: NonNegative = 1.0  # weight of staying near the slow critic
    loss_scale: NonNegative = 1.0
    replay_scale: NonNegative = 0.3  # weight of the critic loss on replayed rows


@dataclass(frozen=True)
class ReturnsConfig:
    """Imagined returns and their normalisation."""

    imagination_horizon: PositiveInt = 15  # H, imagined steps
    discount_horizon: AboveOne = 333.0  # the discount is 1 - 1 / discount_horizon
    return_lambda: Fraction = 0.95
    scale_rate: Fraction = 0.01  # moving average of the return percentiles
    scale_low: Fraction = 0.05  # lower percentile, as a fraction
    scale_high: Fraction = 0.95  # upper percentile, as a fraction


@dataclass(frozen=True)
class OptimizerConfig:
    """Adaptive gradient clipping, then LaProp; one for everything, learning rates apart."""

    agc_clip: Positive = 0.3  # largest ratio of gradient norm to parameter norm, per tensor
    agc_floor: Positive = 1e-3  # smallest parameter norm that counts
    beta1: BelowOne = 0.9  # momentum
    beta2: BelowOne = 0.999  # RMS normaliser
    epsilon: Positive = 1e-20  # added outside the square root, to avoid 0 / 0
    warmup_updates: NonNegativeInt = 1000  # updates of linear learning-rate warm-up
    schedule: Schedule = "constant"  # schedule of the learning rates after the warm-up
    final_fraction: Fraction = 0.1  # cosine: of the learning rate, after `decay_updates`
    decay_updates: PositiveInt = 100_000  # cosine: updates from the full rate to its final fraction


@dataclass(frozen=True)
class AgentConfig:
    """The algorithm."""

    model: ModelConfig = field(default_factory=ModelConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    # How it is computed; what is computed stays the same but for rounding.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 compute on accelerators
    observe_unroll: PositiveInt = 1  # replayed steps per iteration of the compiled loop (unrolling)
    imagine_unroll: PositiveInt = 1  # imagined steps per iteration of the compiled loop (unrolling)
    rematerialise: bool = False  # recompute hidden layers in the backward pass: less memory


@dataclass(frozen=True)
class ImageConfig:
    """How images are made small, right after each step of the environment."""

    height: PositiveInt = 64  # pixels, a multiple of 16
    width: PositiveInt = 64
    colour: Literal["colour", "grey", "darkest"] = "colour"  # darkest: minimum of the channels
    crop: str = ""  # region to keep before resizing, as numpy slices "top:bottom,left:right"; empty: everything
    layout: Literal["auto", "channels_last", "channels_first"] = "auto"  # of the environment's images; auto: from
    # their shape. With four axes, the first one counts frames


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, how it is seen and stepped, and what counts as solved."""

    name: str = ""  # a task with its own settings, or suite:ID such as gym:Acrobot-v1
    id: str = ""  # the environment as suite:ID; empty: same as the name
    kwargs: str = ""  # arguments of the environment's constructor, a JSON object such as {"level": 3}; YAML: a mapping
    obs: Literal["auto", "state", "pixels", "both"] = "auto"  # what the agent observes; auto: the environment's default
    obs_keys: str = ""  # names or patterns of observations to use, such as "arm.*,camera"; empty: all
    obs_ignore: str = ""  # names or patterns of observations to ignore
    image: ImageConfig = field(default_factory=ImageConfig)
    action_repeat: PositiveInt = 1  # frames per action; rewards are summed, and it counts as one step
    num_envs: PositiveInt = 1  # environments stepped together
    workers: NonNegativeInt = 0  # processes that step the environments; 0: the training process
    worker_timeout: Positive = 60.0  # seconds that a worker may take for one step before it counts as hanging
    worker_failures: PositiveInt = 3  # failures of one worker within `worker_failure_minutes` that stop the run
    worker_failure_minutes: Positive = 5.0
    on_bad_observation: Literal["stop", "skip-episode"] = "stop"  # NaN, an invalid class, shape or type
    solve_return: float | None = None  # greedy mean return that counts as solved


@dataclass(frozen=True)
class TrainConfig:
    """Data, phases and budget."""

    mode: Literal["joint", "world_model", "actor_critic"] = "joint"  # what the updates change
    env_steps: PositiveInt = 100_000  # budget, in environment steps over all copies, the prefill included
    ratio: Positive = 512.0  # replayed rows for each environment step after the prefill
    prefill: NonNegativeInt = 1024  # random environment steps before the first update
    world_model_warmup: NonNegativeInt = 0  # updates of the world model alone, on the prefill, in whole dispatches
    batch_size: PositiveInt = 16  # B, windows in a batch
    sequence_length: AtLeastTwo = 64  # T, rows in a window
    updates_per_dispatch: PositiveInt = 4  # U, updates in one call to the device
    pacing: Literal["fixed", "model_ratio", "throttle", "surprise"] = "fixed"  # of world model and actor-critic, when
    # both are trained: together; k - 1 more updates of the world model for each; actor-critic in every k-th alone; as
    # model_ratio, but only while the world model is surprised
    pacing_factor: AtLeastTwo = 2  # k of the pacing
    pacing_surprise: AboveOne = 1.3  # KL or loss on the newest rows, as a multiple of the usual
    collection: Literal["auto", "interleaved", "overlapped"] = "auto"  # auto: overlapped on accelerators
    deterministic: bool = False  # reproducible runs on a GPU, with slower kernels (CPU runs always are)
    stop_when_solved: bool = True


@dataclass(frozen=True)
class ReplayConfig:
    """Stored experience."""

    capacity: PositiveInt = 1_000_000  # rows, over all copies
    storage: Literal["memory", "device", "disk"] = "memory"  # device: batches are gathered there, and all its room is
    # taken at once; disk: the images are in files of the run folder, for more than fits into memory
    context: bool = True  # start a window from the stored latent state of the row before it
    online: bool = True  # train on each new row once soon after it is collected


@dataclass(frozen=True)
class EvalConfig:
    """Greedy evaluation, in environments of its own."""

    every: NonNegativeInt = 2000  # environment steps between evaluations; 0: only at the end
    episodes: PositiveInt = 20  # episodes of a regular evaluation
    final_episodes: PositiveInt = 100  # episodes of the final evaluation, and of the one that confirms a solution
    num_envs: PositiveInt = 100  # maximum number of environments stepped together
    max_episode_steps: PositiveInt = 10_000  # longer episodes are cut in evaluation, films and play
    in_training_env: bool = False  # evaluate in the training environments, for environments that can exist only once
    diagnose: bool = True  # compare dreams with replayed rows (docs/research.md)


@dataclass(frozen=True)
class LogConfig:
    """What is written how often."""

    every: PositiveInt = 200  # environment steps and updates, added up, between lines of train metrics
    checkpoint_seconds: Positive = 30.0  # seconds between checkpoints
    checkpoints_kept: AtLeastTwo = 3
    video_every: NonNegativeInt = 20_000  # environment steps between films; one more is made at the end; 0: none
    tensorboard: bool = True
    report: bool = True  # write report.html at the end of a run


@dataclass(frozen=True)
class AlertConfig:
    """When `alerts.jsonl` names a failure; in brackets what forty healthy runs of CartPole had, at the worst."""

    lines: PositiveInt = 3  # lines of train metrics that must agree: one may be chance
    diagnoses: PositiveInt = 2  # the same of diagnoses, which are further apart
    prior_gradient: NonNegative = 0.01  # least gradient norm of the prior, as a share of the encoder's (0.1)
    latent_nats: NonNegative = 1.0  # least KL of posterior and prior (1.1), where also
    latent_entropy_share: Fraction = 0.84  # the posterior's entropy, as a share of what it can have, is above this
    entropy_share: Fraction = 0.08  # least entropy of a policy that has not reached its goal, as a share (0.11)
    data_wait_share: Fraction = 0.3  # most of the time that updates may wait for data (0.01)
    stored_share: Fraction = 0.5  # least of the collected rows that must reach the replay (1.0)
    cont_error: Fraction = 0.1  # between predicted and real probability to go on (0.03)
    survival_loss: Fraction = 0.3  # of dreams against episodes, after 3 steps (0.10)
    reward_misfit: Fraction = 0.7  # least 1 - correlation of predicted rewards with a neighbour's, by that of their own
    newest_loss: AboveOne = 4.0  # times that the world model's loss on the newest rows may exceed that on all
    window_steps: PositiveInt = 2000  # environment steps over which value and return are compared
    value_rise: NonNegative = 0.5  # of the value in the window, as a share
    return_fall: NonNegative = 0.3  # of the greedy return from its best in the window, as a share
    value_excess: NonNegative = 0.25  # of the value over the discounted return that followed, as a share


@dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: NonNegativeInt = 0
    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    alerts: AlertConfig = field(default_factory=AlertConfig)
