"""The three networks that are trained separately: world model, actor, critic."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamerjax.config import ModelConfig
from dreamerjax.nets.decoder import Decoder
from dreamerjax.nets.encoder import Encoder
from dreamerjax.nets.heads import Head
from dreamerjax.nets.layers import Dtype
from dreamerjax.nets.rssm import RSSM, BlockState, initial_latent, latent_features, latent_noise
from dreamerjax.nets.vision import check_observations
from dreamerjax.types import Array, LatentState, Params, PRNGKey, Spaces, Variables


class WorldModel(nn.Module):
    """Encoder, RSSM, decoder, reward head and continue head."""

    config: ModelConfig
    spaces: Spaces
    dtype: Dtype

    def setup(self) -> None:
        config, dtype = self.config, self.dtype
        self.encoder = Encoder(self.spaces.obs, config, dtype)
        self.rssm = RSSM(config, dtype)
        self.decoder = Decoder(self.spaces.obs, config, dtype)
        self.reward_head = Head(config.reward_layers, config.hidden, config.bins, output_scale=0.0, dtype=dtype)
        self.cont_head = Head(config.cont_layers, config.hidden, 1, output_scale=1.0, dtype=dtype)

    def encode(self, obs: dict[str, Array]) -> Array:
        """Observations [..., ...] -> embedding [..., E]."""
        return self.encoder(obs)

    def observe_step(
        self, state: LatentState, prev_action: Array, embed: Array, is_first: Array, noise: Array
    ) -> tuple[LatentState, Array]:
        """See `RSSM.observe_step`."""
        return self.rssm.observe_step(state, prev_action, embed, is_first, noise)

    def imagine_step(self, state: LatentState, action: Array, noise: Array) -> LatentState:
        """See `RSSM.imagine_step`."""
        return self.rssm.imagine_step(state, action, noise)

    def observe_in_blocks(
        self, state: BlockState, prev_action: Array, embed: Array, is_first: Array, noise: Array
    ) -> tuple[BlockState, Array]:
        """See `RSSM.observe_in_blocks`."""
        return self.rssm.observe_in_blocks(state, prev_action, embed, is_first, noise)

    def imagine_in_blocks(self, state: BlockState, action: Array, noise: Array) -> BlockState:
        """See `RSSM.imagine_in_blocks`."""
        return self.rssm.imagine_in_blocks(state, action, noise)

    def look(self, state: LatentState, embed: Array, noise: Array) -> tuple[LatentState, Array]:
        """See `RSSM.look`."""
        return self.rssm.look(state, embed, noise)

    def prior(self, deter: Array) -> Array:
        """See `RSSM.prior`."""
        return self.rssm.prior(deter)

    def decode(self, features: Array) -> dict[str, Array]:
        """Features [..., F] -> predicted observations: vectors in symlog space, images in 0 ... 1."""
        return self.decoder(features)

    def reward(self, features: Array) -> Array:
        """Features [..., F] -> two-hot logits [..., M] of the reward of arriving here."""
        return self.reward_head(features)

    def cont(self, features: Array) -> Array:
        """Features [..., F] -> logit [...] that the episode goes on. Its probability already contains the discount."""
        return self.cont_head(features)[..., 0]

    def __call__(self, obs: dict[str, Array], prev_action: Array, key: PRNGKey) -> None:
        """Touches every parameter once; only for initialisation."""
        state = initial_latent(prev_action.shape[0], self.config, self.dtype)
        is_first = jnp.ones(prev_action.shape[:1], bool)
        noise = latent_noise(key, prev_action.shape[0], config=self.config)
        state, _ = self.observe_step(state, prev_action, self.encode(obs), is_first, noise)
        features = latent_features(self.imagine_step(state, prev_action, noise))
        _ = self.decode(features), self.reward(features), self.cont(features)


def apply(module: nn.Module, variables: Variables, *inputs: Any, method: Callable[..., Any] | None = None) -> Any:
    """The outputs of a module for these parameters and inputs: a pure function."""
    return module.apply(variables, *inputs, method=method)


class Networks(NamedTuple):
    """The modules, without parameters."""

    world_model: WorldModel
    actor: Head  # features -> for each part of the action logits, or means and standard deviations
    critic: Head  # features -> M two-hot logits


def build_networks(config: ModelConfig, spaces: Spaces, dtype: Dtype) -> Networks:
    """Makes the modules for a resolved configuration.

    Args:
        config: the architecture, with every number filled in.
        spaces: observations and actions.
        dtype: of the computation; parameters are always float32.

    Raises:
        ConfigError: an observation has a shape that the networks cannot see.
    """
    check_observations(spaces.obs, config)
    outputs = sum(part.outputs for part in spaces.actions)
    return Networks(
        world_model=WorldModel(config, spaces, dtype),
        actor=Head(config.actor_layers, config.hidden, outputs, output_scale=0.01, dtype=dtype),
        critic=Head(config.critic_layers, config.hidden, config.bins, output_scale=0.0, dtype=dtype),
    )


def init_params(networks: Networks, key: PRNGKey) -> Params:
    """Initial parameters, float32. The key is consumed."""
    world_model_key, actor_key, critic_key, sample_key = jax.random.split(key, 4)
    config, spaces = networks.world_model.config, networks.world_model.spaces
    obs = {spec.name: jnp.zeros((1, *spec.shape), spec.dtype) for spec in spaces.obs}
    prev_action = jnp.zeros((1, spaces.action_size))
    features = latent_features(initial_latent(1, config, networks.world_model.dtype))
    return Params(
        world_model=networks.world_model.init(world_model_key, obs, prev_action, sample_key),
        actor=networks.actor.init(actor_key, features),
        critic=networks.critic.init(critic_key, features),
    )
