"""Images through encoder and decoder: shapes, what is refused, the convolutions, and whether it all learns."""

import dataclasses
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import jit

from dreamerjax.agent.world_model import image_loss
from dreamerjax.config import ConfigError
from dreamerjax.nets.decoder import Decoder
from dreamerjax.nets.encoder import Encoder
from dreamerjax.nets.networks import WorldModel, build_networks, init_params
from dreamerjax.nets.patches import from_patches, to_patches
from dreamerjax.nets.vision import Conv, DoublingConv
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.tiny import MODEL, random_like

FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
ACTIONS = (ActionSpec("discrete", 2),)
KEY = jax.random.PRNGKey(0)
VECTOR = ObsSpec("vector", (5,))


def image(*shape: int, name: str = "image") -> ObsSpec:
    return ObsSpec(name, shape)


def random_obs(*specs: ObsSpec, lead: tuple[int, ...] = (2,), seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        spec.name: jnp.asarray(
            rng.integers(256, size=(*lead, *spec.shape)) if spec.is_image else rng.normal(size=(*lead, *spec.shape)),
            spec.dtype,
        )
        for spec in specs
    }


@pytest.mark.parametrize(
    ("spec", "is_image", "dtype"), [(VECTOR, False, np.float32), (image(32, 48, 3), True, np.uint8)]
)
def test_rank_3_is_an_image_and_an_image_is_uint8(spec, is_image, dtype):
    assert (spec.is_image, spec.dtype) == (is_image, dtype)


# what is seen -> the embedding's size: 8 of the vectors, depth 4 times 4 of each place in the smallest picture
SEEN = [
    ((image(16, 16, 1),), 16),
    ((image(64, 64, 3),), 16 * 16),
    ((image(96, 96, 4),), 36 * 16),
    ((image(48, 32, 3), VECTOR), 8 + 6 * 16),
    ((image(32, 16, 3, name="left"), VECTOR, image(32, 16, 1, name="depth"), ObsSpec("other", (2,))), 8 + 2 * 16),
]


@pytest.mark.parametrize(("specs", "embedding"), SEEN, ids=[str([spec.shape for spec in specs]) for specs, _ in SEEN])
@pytest.mark.parametrize(("lead", "dtype"), [((3,), FLOAT32), ((2, 3), BFLOAT16)])
def test_every_key_is_embedded_and_decoded_in_its_own_shape(specs, embedding, lead, dtype):
    networks = build_networks(MODEL, Spaces(specs, ACTIONS), dtype)

    def see(key):
        model = networks.world_model.bind(init_params(networks, key).world_model)
        obs = {spec.name: jnp.zeros((*lead, *spec.shape), spec.dtype) for spec in specs}
        return model.encode(obs), model.decode(jnp.zeros((*lead, MODEL.deter + 16), dtype))

    embed, decoded = jax.eval_shape(see, KEY)
    assert (embed.shape, embed.dtype) == ((*lead, embedding), dtype)
    assert {name: (x.shape, x.dtype) for name, x in decoded.items()} == {
        spec.name: ((*lead, *spec.shape), FLOAT32) for spec in specs
    }


REFUSED = [
    ((image(84, 84, 3),), {}, r"'image' has the shape .* = \(84, 84, 3\), expected .* multiples of 16, at most 96"),
    ((image(64, 72, 3),), {}, r"= \(64, 72, 3\), expected height and width to be multiples of 16"),
    ((image(112, 64, 3),), {}, r"= \(112, 64, 3\), expected .* at most 96"),
    ((image(0, 64, 3),), {}, r"= \(0, 64, 3\)"),
    ((image(64, 64, 0),), {}, r"= \(64, 64, 0\), expected .* a channel or more"),
    ((image(32, 32),), {}, r"'image' has the shape \(32, 32\), expected \(size,\) for a vector or \(height, width,"),
    ((VECTOR, ObsSpec("number", ())), {}, r"'number' has the shape \(\)"),
    (
        (image(32, 32, 3, name="a"), image(32, 64, 3, name="b")),
        {},
        r"'a' \(32, 32, 3\), 'b' \(32, 64, 3\), expected one",
    ),
    ((image(32, 32, 3),), {"depth": 3, "deter": 16, "blocks": 8}, "depth is 3, expected 4 x depth .* which is 8"),
]


@pytest.mark.parametrize(("specs", "changes", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_the_networks_cannot_see_is_refused(specs, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_networks(dataclasses.replace(MODEL, **changes), Spaces(specs, ACTIONS), FLOAT32)


def test_images_of_several_keys_are_one_image_with_more_channels():
    apart, together = (image(16, 16, 2, name="a"), image(16, 16, 1, name="b")), (image(16, 16, 3),)
    encoders, decoders = (
        [part(specs, MODEL, FLOAT32, multiples=(1, 2)) for specs in (apart, together)] for part in (Encoder, Decoder)
    )
    obs = random_obs(*apart)
    whole = {"image": jnp.concatenate([obs["a"], obs["b"]], -1)}
    params = random_like(jax.eval_shape(encoders[0].init, KEY, obs), scale=0.5)
    np.testing.assert_array_equal(jit(encoders[0].apply)(params, obs), jit(encoders[1].apply)(params, whole))
    features = jax.random.normal(KEY, (2, 32))
    params = random_like(jax.eval_shape(decoders[0].init, KEY, features), scale=0.5)
    decoded, whole = (jit(decoder.apply)(params, features) for decoder in decoders)
    np.testing.assert_array_equal(jnp.concatenate([decoded["a"], decoded["b"]], -1), whole["image"])


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (1, 3, 5, 2)])
@pytest.mark.parametrize(("module", "scale"), [(Conv, 1), (DoublingConv, 2)])
def test_a_convolution_and_its_gradient_are_those_of_flax(module, scale, shape):
    """On pixels that are doubled before, if it doubles them; gradients in a loop, as updates have them."""
    quick, plain = module(4, FLOAT32), nn.Conv(4, (5, 5))
    x = jax.random.normal(KEY, shape)
    params = random_like(jax.eval_shape(quick.init, KEY, x), scale=1.0)
    weights = jax.random.normal(KEY, (shape[0], scale * shape[1], scale * shape[2], 4))

    def reference(params, x):
        return plain.apply(params, x.repeat(scale, 1).repeat(scale, 2))

    def value_and_gradient(f):
        def step(_, x):
            return None, (f(params, x), jax.grad(lambda *at: (weights * f(*at)).sum(), argnums=(0, 1))(params, x))

        return jit(lambda xs: jax.lax.scan(step, None, xs)[1])(jnp.stack([x, -x]))

    chex.assert_trees_all_close(value_and_gradient(quick.apply), value_and_gradient(reference), rtol=1e-4, atol=1e-3)


def test_every_kernel_starts_with_the_variance_of_its_fan_in():
    config = dataclasses.replace(MODEL, depth=16, deter=128, hidden=64)
    networks = build_networks(config, Spaces((image(32, 32, 3),), ACTIONS), FLOAT32)
    params = jit(lambda key: init_params(networks, key))(KEY).world_model["params"]
    seen = {part: params[part]["images"] for part in ("encoder", "decoder")}
    for path, leaf in jax.tree_util.tree_leaves_with_path(seen):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel"):
            # All that one output reads: 5x5 of every channel, and all of deter for the layer in blocks.
            sd = 1 / math.sqrt(math.prod(leaf.shape[:-1]))
            np.testing.assert_allclose(np.std(leaf), sd, rtol=5 / math.sqrt(2 * leaf.size), err_msg=name)
        else:
            np.testing.assert_array_equal(leaf, 0.0 if name.endswith("bias") else 1.0, err_msg=name)
    assert seen["encoder"]["conv3"]["kernel"].shape == seen["decoder"]["conv2"]["kernel"].shape == (5, 5, 64, 64)
    assert seen["decoder"]["deter"]["kernel"].shape == (4, 32, 2 * 2 * 16)


def test_bfloat16_sees_and_draws_what_float32_does_to_its_own_precision():
    specs = (image(16, 16, 3), VECTOR)
    networks = [build_networks(MODEL, Spaces(specs, ACTIONS), dtype) for dtype in (FLOAT32, BFLOAT16)]
    params = jit(lambda key: init_params(networks[0], key))(KEY).world_model
    obs, features = random_obs(*specs), jax.random.normal(KEY, (2, 32))

    def see(model: WorldModel):
        bound = model.bind(params)
        return bound.encode(obs).astype(FLOAT32), bound.decode(features)["image"]

    for exact, rounded in zip(*(jit(lambda nets=nets: see(nets.world_model))() for nets in networks), strict=True):
        np.testing.assert_allclose(rounded, exact, atol=0.05)
        assert np.abs(rounded - exact).max() > 1e-5


PATCHES = dataclasses.replace(MODEL, vision="patches")


@pytest.mark.parametrize(
    "specs", [specs for specs, _ in SEEN], ids=[str([s.shape for s in specs]) for specs, _ in SEEN]
)
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_patches_embed_and_decode_the_same_keys(specs, lead):
    networks = build_networks(PATCHES, Spaces(specs, ACTIONS), FLOAT32)

    def see(key):
        model = networks.world_model.bind(init_params(networks, key).world_model)
        obs = {spec.name: jnp.zeros((*lead, *spec.shape), spec.dtype) for spec in specs}
        return model.encode(obs), model.decode(jnp.zeros((*lead, MODEL.deter + 16)))

    embed, decoded = jax.eval_shape(see, KEY)
    height, width = next(spec.shape[:2] for spec in specs if spec.is_image)
    vectors = any(spec.is_vector for spec in specs)
    assert embed.shape == (*lead, height // 16 * (width // 16) * MODEL.depth * 16 + vectors * MODEL.hidden)
    assert {name: (x.shape, x.dtype) for name, x in decoded.items()} == {
        spec.name: ((*lead, *spec.shape), FLOAT32) for spec in specs
    }


def test_patches_are_pieces_of_the_image_and_go_back_to_their_place():
    height, width = 32, 48
    images = jnp.arange(2 * height * width * 3).reshape(2, height, width, 3)
    patches = to_patches(images)
    assert patches.shape == (2, 6, 4, 64, 3)
    for row in range(height // 8):
        for column in range(width // 8):
            coarse = row // 2 * (width // 16) + column // 2
            fine = row % 2 * 2 + column % 2
            piece = images[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            np.testing.assert_array_equal(patches[:, coarse, fine].reshape(piece.shape), piece)
    np.testing.assert_array_equal(from_patches(patches, height, width), images)


def test_a_patch_is_seen_and_drawn_where_it_is_and_nowhere_else():
    """What changes in one corner changes only what the coarse patch of that corner gives, and the other way round."""
    spec = image(32, 32, 1)
    networks = build_networks(PATCHES, Spaces((spec,), ACTIONS), FLOAT32)
    params = jit(lambda key: init_params(networks, key))(KEY).world_model
    model = networks.world_model.bind(params)
    obs = random_obs(spec)
    changed = {"image": obs["image"].at[:, 17:20, 3:6].set(255 - obs["image"][:, 17:20, 3:6])}
    before, after = (np.asarray(model.encode(x)).reshape(2, 4, -1) for x in (obs, changed))
    np.testing.assert_array_equal((before != after).any((0, 2)), [False, False, True, False])


@pytest.mark.parametrize("vision", ["convolutions", "patches"])
def test_a_small_encoder_and_decoder_learn_eight_images(vision):
    """The embedding serves as the features: 192 of convolutions, 64 of patches."""
    deter, groups = (128, 8) if vision == "convolutions" else (48, 2)
    config = dataclasses.replace(MODEL, deter=deter, groups=groups, classes=8, vision=vision)
    encoder, decoder = (part((image(16, 16, 3),), config, FLOAT32, multiples=(2, 3)) for part in (Encoder, Decoder))
    squares = np.random.default_rng(0).integers(256, size=(8, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    images = jnp.asarray(squares, jnp.uint8)
    params = (
        jit(encoder.init)(KEY, {"image": images}),
        jit(decoder.init)(KEY, jnp.zeros((1, deter + 8 * groups))),
    )
    optimizer = optax.adam(1e-2)

    def loss(params):
        features = encoder.apply(params[0], {"image": images})
        return image_loss(decoder.apply(params[1], features)["image"], images).mean()

    @jit
    def update(params, state):
        gradients = jax.grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(100):
        params, state = update(params, state)
    around_the_mean = np.square(squares / 255 - (squares / 255).mean(0)).sum((1, 2, 3)).mean()
    assert jit(loss)(params) < 0.05 * around_the_mean
