"""Times training updates of R2-Dreamer's PyTorch code (github.com/NM512/r2dreamer) in its plain DreamerV3 variant.

One update is `Dreamer.update` of that code on a batch that its replay buffer would have sampled: the transfer to the
device, forward and backward of all losses, the optimizer and the slow critic. Sampling the batch and writing the latent
states back into the buffer are left out.
"""

import argparse
import os
import sys
from collections import deque

import adapter_protocol as protocol
import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor

CONTEXT = 1  # Its buffer samples one more row, which gives the initial latent state.
EVERYTHING, NOTHING = ".*", "$^"  # regular expressions on the names of observations


class PreparedReplay:
    """Replaces its replay buffer: returns prepared batches and drops the latent states that are written back."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batches: deque[TensorDict] = deque()

    def sample(self) -> tuple[TensorDict, None, tuple[Tensor, Tensor]]:
        """The next batch on the device, with the action that led to each row, and the latent states to start from."""
        batch = self.batches.popleft()
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        rows = batch[:, CONTEXT:]
        rows.set("action", batch["action"][:, :-CONTEXT])
        return rows, None, (batch["stoch"][:, 0], batch["deter"][:, 0])

    def update(self, index: None, stoch: Tensor, deter: Tensor) -> None:
        """Would write the latent states back."""


def agent_config(arguments: argparse.Namespace, compiled: bool) -> DictConfig:
    """Its own model configuration at the size asked for, as plain DreamerV3 (with a decoder)."""
    size = protocol.SIZES[arguments.size]
    model = OmegaConf.load(arguments.source / "configs" / "model" / "_base_.yaml")
    widths = {"deter": size["deter"], "hidden": size["units"], "units": size["units"]}
    latent = {"discrete": size["classes"], "depth": size["depth"]}
    choices = {"act": "SiLU", "norm": True, "rep_loss": "dreamer", "compile": compiled}
    mlp, cnn = (NOTHING, EVERYTHING) if arguments.image else (EVERYTHING, NOTHING)
    keys = {"mlp_keys": mlp, "cnn_keys": cnn}
    root = OmegaConf.create({"device": arguments.device, "env": {"encoder": keys, "decoder": keys}})
    root.model = OmegaConf.merge(model, widths, latent, choices)
    return root.model


def spaces(image: bool) -> tuple[gymnasium.spaces.Dict, gymnasium.spaces.Discrete]:
    """Spaces of observations and actions, marked as its own environments mark them."""
    if image:
        observation = gymnasium.spaces.Box(0, 255, protocol.IMAGE_SHAPE, np.uint8)
    else:
        observation = gymnasium.spaces.Box(-np.inf, np.inf, (protocol.VECTOR_SIZE,), np.float32)
    action = gymnasium.spaces.Discrete(protocol.ACTIONS)
    action.n = protocol.ACTIONS  # a plain int, which its configuration can hold
    action.discrete = True
    return gymnasium.spaces.Dict({"image" if image else "vector": observation}), action


class R2Dreamer:
    """Its agent with its default settings, but for the variant, the size, the precision and the device."""

    name = "r2dreamer (rep_loss=dreamer)"
    notes = (
        "plain DreamerV3 variant; its fixed float16 autocast is replaced by the precision asked for; its loss scaler "
        "stays on with CUDA and is off without; it compiles its losses by default, which this adapter does with CUDA "
        "only, as compiling for the CPU takes over ten minutes"
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.source is None:
            protocol.refuse("--source must name a clone of NM512/r2dreamer")
        sys.path.insert(0, str(arguments.source))
        import dreamer

        def autocast(device_type: str, dtype: torch.dtype) -> torch.amp.autocast:
            return torch.amp.autocast(device_type, torch.bfloat16, enabled=arguments.precision == "bfloat16")

        dreamer.autocast = autocast
        torch.manual_seed(0)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        compiled = arguments.compile == "on" or (arguments.compile == "default" and arguments.device == "cuda")
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        self.agent = dreamer.Dreamer(agent_config(arguments, compiled), *spaces(arguments.image)).to(self.device)
        assert self.agent.imag_horizon == protocol.HORIZON
        self.version = f"{protocol.commit_of(arguments.source)}, torch {torch.__version__}"
        self.parameters = sum(parameter.numel() for parameter in self.agent._named_params.values())
        self.settings = {"torch_compile": compiled, "threads": torch.get_num_threads()}
        self.rng = np.random.default_rng(0)
        self.replay = PreparedReplay(self.device)

    def _batch(self) -> TensorDict:
        shape = (self.arguments.batch, self.arguments.length + CONTEXT)
        arrays = protocol.random_batch(self.rng, *shape, self.arguments.image)
        deter, stoch = protocol.random_latents(self.rng, *shape, self.arguments.size)
        batch = TensorDict({"deter": torch.from_numpy(deter), "stoch": torch.from_numpy(stoch)}, shape)
        batch["image" if self.arguments.image else "vector"] = torch.from_numpy(arrays["observation"])
        batch["action"] = torch.from_numpy(np.eye(protocol.ACTIONS, dtype=np.float32)[arrays["action"]])
        for name in ("reward", "is_first", "is_last", "is_terminal"):
            batch[name] = torch.from_numpy(arrays[name][..., None])
        return batch

    def prepare(self, updates: int) -> None:
        """Makes batches as its replay buffer stores them."""
        self.replay.batches.extend(self._batch() for _ in range(updates))

    def update(self) -> None:
        """Makes one update of everything."""
        self.agent.update(self.replay)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory_mb(self) -> float:
        """The peak of PyTorch's own pool on a GPU, else of the process."""
        return torch.cuda.max_memory_reserved() / 2**20 if self.device.type == "cuda" else protocol.host_peak_mb()


if __name__ == "__main__":
    protocol.serve(__doc__, R2Dreamer)
