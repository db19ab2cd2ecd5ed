"""Variants of the program for experiments: known bugs and planted faults, each a function that patches the code.

`code: experiments/variants.py:NAME` in a hypothesis runs an arm with one of them. The library has none of them.
"""

import jax
import jax.numpy as jnp

from dreamerjax.agent import actor_critic, train_step, world_model
from dreamerjax.math import distributions


def returns_from_this_state() -> None:
    """Lambda returns that bootstrap from V(s_t) instead of V(s_{t+1}): an off-by-one error."""
    right_targets, right_returns = actor_critic.dream_targets, actor_critic.lambda_returns

    def dream_targets(agent, dream, scale, *, return_lambda):
        def late(reward, cont, value, bootstrap, *, lambda_):
            return right_returns(reward, cont, dream.value[:-1], bootstrap, lambda_=lambda_)

        actor_critic.lambda_returns = late
        try:
            return right_targets(agent, dream, scale, return_lambda=return_lambda)
        finally:
            actor_critic.lambda_returns = right_returns

    train_step.dream_targets = dream_targets


def _free_nats_on_the_mean(how: str) -> None:
    """Applies the free nats to the mean KL of the batch, with this gradient below them."""

    def balanced_kl(post_logits, prior_logits, *, unimix_share, free_nats, gradient):
        stop = jax.lax.stop_gradient
        post = distributions.unimix(post_logits, unimix_share)
        prior = distributions.unimix(prior_logits, unimix_share)
        kls = (distributions.categorical_kl(p, q).sum(-1).mean() for p, q in ((stop(post), prior), (post, stop(prior))))
        floors = (distributions.free_nats_floor(kl, free_nats, how) for kl in kls)
        dynamics, representation = (jnp.broadcast_to(floor, post_logits.shape[:-2]) for floor in floors)
        return dynamics, representation

    world_model.balanced_kl = balanced_kl


def free_nats_on_the_mean() -> None:
    """The free nats apply to the mean KL of the batch; below them, there is no gradient."""
    _free_nats_on_the_mean("clip")


def free_nats_on_the_mean_straight_through() -> None:
    """The free nats apply to the mean KL of the batch; below them, the gradient is that of the KL."""
    _free_nats_on_the_mean("straight_through")


def prior_without_gradient() -> None:
    """Planted fault: no gradient reaches the prior."""
    right = world_model.balanced_kl

    def cut(post_logits, prior_logits, **options):
        return right(post_logits, jax.lax.stop_gradient(prior_logits), **options)

    world_model.balanced_kl = cut


def cont_head_says_half() -> None:
    """Planted fault: the continue head always says 0.5."""
    from dreamerjax.nets.networks import WorldModel

    WorldModel.cont = lambda self, features: 0.0 * self.cont_head(features)[..., 0]  # pyright: ignore


def reward_one_step_late() -> None:
    """Planted fault: the reward head learns the reward of the previous row."""
    right = world_model.two_hot_cross_entropy

    def late(logits, target, bins):
        return right(logits, jnp.concatenate([target[:1], target[:-1]]), bins)

    world_model.two_hot_cross_entropy = late


def replay_frozen() -> None:
    """Planted fault: after the first 1,024 rows, no more rows are added to the replay buffer."""
    from dreamerjax.replay.replay import Replay

    right = Replay.add

    def add(self, rows):
        if len(self) < 1024:
            right(self, rows)

    Replay.add = add


def images_made_small_late() -> None:
    """Full frames are stored and resized one by one whenever rows are drawn: the slow pipeline of the research log."""
    import numpy as np

    from dreamerjax.envs.pixels import Shrink
    from dreamerjax.replay.ring import Ring

    newest = {}  # the newest full frame, and the function that resizes it
    right_shrink, right_write, right_gather = Shrink.__call__, Ring.write, Ring._gather

    def shrink(self, frame):
        newest.update(frame=frame.copy(), shrink=self)
        return right_shrink(self, frame)

    def write(self, rows):
        frames = vars(self).setdefault("whole_frames", {})
        frames[self.slot_of(self.added)] = (newest["frame"], newest["shrink"])
        right_write(self, rows)

    def gather(self, index):
        batch = right_gather(self, index)
        small = [right_shrink(which, frame) for frame, which in (self.whole_frames[slot] for slot in np.ravel(index))]
        assert (np.reshape(small, batch.obs["image"].shape) == batch.obs["image"]).all()
        return batch

    Shrink.__call__, Ring.write, Ring._gather = shrink, write, gather
