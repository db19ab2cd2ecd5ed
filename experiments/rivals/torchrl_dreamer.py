"""Times training updates of TorchRL's DreamerV3 (its public modules, losses and stepper), for comparison.

One update is the transfer of the batch to the device and one `DreamerV3OptimizationStepper.step`: forward and backward
of all losses, the optimizer and the slow critic. The networks have the layers of the authors' code.
"""

import argparse
import os
from collections import deque

import adapter_protocol as protocol
import numpy as np
import torch
import torchrl
from tensordict import TensorDict
from tensordict.nn import TensorDictModule as Module
from tensordict.nn import TensorDictSequential as Sequential
from torchrl import modules, objectives
from torchrl.data import Composite, OneHot, Unbounded
from torchrl.envs.model_based import DreamerEnv
from torchrl.trainers.algorithms import DreamerV3OptimizationStepper, DreamerV3Optimizer

BINS = 255
UNIMIX = 0.01
DISCOUNT_HORIZON = 333.0
SLOW_CRITIC_RATE = 0.02
IMAGE_SHAPE = (protocol.IMAGE_SHAPE[-1], *protocol.IMAGE_SHAPE[:-1])  # channels first
LATENT = ["belief", "state"]


class Head(modules.DreamerV3MLP):
    """An MLP on the latent state whose output stays in float32 under autocast."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Maps belief and state [..., D] and [..., S] to [..., outputs]."""
        return super().forward(*inputs).float()


def seen(*names: str) -> list[tuple[str, str]]:
    """The keys of what a replayed step led to."""
    return [("next", name) for name in names]


def build_loss(size: str, image: bool, device: torch.device) -> objectives.DreamerV3Loss:
    """World model, actor and critic of a size, with all their losses."""
    deter, units, classes, depth = (protocol.SIZES[size][name] for name in ("deter", "units", "classes", "depth"))
    stoch = protocol.GROUPS * classes
    width = {"in_features": deter + stoch, "num_cells": units}
    latent = {"hidden_dim": units, "rnn_hidden_dim": deter, "num_categoricals": protocol.GROUPS}
    latent |= {"num_classes": classes, "unimix": UNIMIX}
    bins = modules.SymExpTwoHot(BINS)
    reward = Head(**width, out_features=BINS, depth=1, outscale=0.0)
    going_on = Head(**width, out_features=1, depth=1)
    if image:
        camera = modules.DreamerV3ImageEncoder(depth=depth)
        embedding = camera.output_features(IMAGE_SHAPE)
        encoder = Module(camera, seen("observation"), seen("encoded_latents"))
        painter = modules.DreamerV3ImageDecoder(deter + stoch, IMAGE_SHAPE, depth)
        decoder = Module(painter, seen(*LATENT), seen("decoded"))
    else:
        embedding = units
        encoder = Sequential(
            Module(objectives.symlog, seen("observation"), seen("squashed")),
            Module(
                modules.DreamerV3MLP(protocol.VECTOR_SIZE, None, 3, units), seen("squashed"), seen("encoded_latents")
            ),
        )
        decoder = Sequential(
            Module(Head(**width, out_features=protocol.VECTOR_SIZE, depth=3), seen(*LATENT), seen("decoded")),
            Module(objectives.symexp, seen("decoded"), seen("decoded")),
        )
    actions = {"action_shape": (protocol.ACTIONS,), "action_dim": protocol.ACTIONS}
    prior = modules.RSSMPriorV3(**latent, **actions, recurrent_model="block_gru")
    posterior = modules.RSSMPosteriorV3(**latent, obs_embed_dim=embedding, use_rms_norm=True)
    before = ["state", "belief", "action"]
    world_model = Sequential(
        encoder,
        modules.RSSMRolloutV3(
            Module(prior, before, seen("prior_logits", "state", "belief")),
            Module(posterior, seen("belief", "encoded_latents"), seen("posterior_logits", "state")),
        ),
        decoder,
        Module(reward, seen(*LATENT), seen("reward_logits")),
        Module(bins, seen("reward_logits"), seen("reward")),
        Module(going_on, seen(*LATENT), seen("continue_pred")),
    ).to(device)
    dream = modules.WorldModelWrapper(
        Module(prior, before, ["_", "state", "belief"]),
        Sequential(Module(reward, LATENT, ["reward_logits"]), Module(bins, ["reward_logits"], ["reward"])),
    )
    environment = DreamerEnv(dream, prior_shape=(stoch,), belief_shape=(deter,), device=device)
    environment.observation_spec = Composite(state=Unbounded(stoch), belief=Unbounded(deter)).to(device)
    environment.state_spec = environment.observation_spec.clone()
    environment.action_spec = OneHot(protocol.ACTIONS, device=device)
    environment.reward_spec = Unbounded((1,), device=device)
    continuation = Sequential(
        Module(going_on, LATENT, ["continue_logits"]), Module(torch.nn.Sigmoid(), ["continue_logits"], ["continuation"])
    )
    actor = modules.DreamerV3DiscreteActor(deter + stoch, protocol.ACTIONS, num_cells=units, unimix=UNIMIX).to(device)
    critic = Sequential(
        Module(Head(**width, out_features=BINS, depth=3, outscale=0.0), LATENT, ["state_value_logits"]),
        Module(modules.SymExpTwoHot(BINS), ["state_value_logits"], ["state_value"]),
    ).to(device)

    model_loss = objectives.DreamerV3ModelLoss(
        world_model, kl_mode="separate", unimix=UNIMIX, lambda_continue=1.0, reco_symlog=not image, detach_output=False,
        continue_target_scale=1 - 1 / DISCOUNT_HORIZON,
    )  # fmt: skip
    model_loss.set_keys(pixels="observation", reco_pixels="decoded")
    options = {"continuation_model": continuation, "imagination_horizon": protocol.HORIZON, "use_reinforce": True}
    actor_loss = objectives.DreamerV3ActorLoss(actor, critic, environment, **options)
    actor_loss.make_value_estimator(objectives.ValueEstimators.TDLambda, gamma=1.0, lmbda=0.95)
    options = {"value_loss": "two_hot", "actor_loss": actor_loss, "slow_critic_regularization": 1.0}
    value_loss = objectives.DreamerV3ValueLoss(critic, **options)
    return objectives.DreamerV3Loss(model_loss, actor_loss, value_loss, continuation_horizon=DISCOUNT_HORIZON).to(
        device
    )


class TorchRLDreamer:
    """Its learner with its default settings, but for the authors' choices of losses, the size and the precision."""

    name = "torchrl DreamerV3"
    version = f"torchrl {torchrl.__version__}, torch {torch.__version__}"
    notes = (
        "compiled and captured as a CUDA graph on CUDA, eager on the CPU, as by default; its world model draws an "
        "unused prior sample at each step; images go through strided and transposed convolutions"
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.precision == "bfloat16" and arguments.device == "cpu":
            protocol.refuse("TorchRL's DreamerV3 trains in bfloat16 on CUDA only")
        torch.manual_seed(0)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        loss = build_loss(arguments.size, arguments.image, self.device)
        trained = [*loss.model_loss.world_model.parameters(), *loss.actor_loss.actor_model.parameters()]
        trained += list(loss.value_loss.parameters())
        self.parameters = sum(parameter.numel() for parameter in trained)
        self.stepper = DreamerV3OptimizationStepper(
            loss,
            DreamerV3Optimizer(trained),
            objectives.SoftUpdate(loss.value_loss, tau=SLOW_CRITIC_RATE),
            compile_train_step={"default": None, "on": True, "off": False}[arguments.compile],
            mixed_precision=arguments.precision == "bfloat16",
        )
        compiled, captured = self.stepper.resolve(self.device)
        self.settings = {"torch_compile": compiled, "cuda_graph": captured, "threads": torch.get_num_threads()}
        self.rng = np.random.default_rng(0)
        self.samples: deque[TensorDict] = deque()
        if compiled or captured:
            self.stepper.warmup(self._sample().to(self.device))

    def _sample(self) -> TensorDict:
        shape = (self.arguments.batch, self.arguments.length)
        rows = protocol.random_batch(self.rng, *shape, self.arguments.image)
        belief, state = protocol.random_latents(self.rng, *shape, self.arguments.size)
        if self.arguments.image:
            rows["observation"] = np.ascontiguousarray(np.moveaxis(rows["observation"], -1, -3))
        renamed = {"reward": "reward", "is_last": "done", "is_terminal": "terminated"}
        after = {name: rows[key][..., None] for key, name in renamed.items()}
        before = {
            "belief": belief,
            "state": state.reshape(*shape, -1),
            "action": np.eye(protocol.ACTIONS, dtype=np.float32)[rows["action"]],
            "is_init": rows["is_first"][..., None],
        }
        return TensorDict({**before, "next": {"observation": rows["observation"], **after}}, shape)

    def prepare(self, updates: int) -> None:
        """Makes sequences as its replay buffer gives them."""
        self.samples.extend(self._sample() for _ in range(updates))

    def update(self) -> None:
        """Makes one update of everything."""
        self.stepper.step(None, self.samples.popleft().to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory_mb(self) -> float:
        """The peak of PyTorch's own pool on a GPU, else of the process."""
        return torch.cuda.max_memory_reserved() / 2**20 if self.device.type == "cuda" else protocol.host_peak_mb()


if __name__ == "__main__":
    protocol.serve(__doc__, TorchRLDreamer)
