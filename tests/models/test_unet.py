from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.models import LinPositionEncoding, UNet, VariableEncoding

BLOCK = [
    "0.weight",
    "0.bias",
    "1.weight",
    "1.bias",
    "1.running_mean",
    "1.running_var",
    "1.num_batches_tracked",
    "3.weight",
    "3.bias",
    "4.weight",
    "4.bias",
    "4.running_mean",
    "4.running_var",
    "4.num_batches_tracked",
]
SMALL_NAMES = [
    *(f"encoders.0.{name}" for name in BLOCK),
    *(f"encoders.1.{name}" for name in BLOCK),
    *(f"decoders.0.{name}" for name in BLOCK),
    *(f"decoders.1.{name}" for name in BLOCK),
    "upconvs.0.weight",
    "upconvs.0.bias",
    "upconvs.1.weight",
    "upconvs.1.bias",
    *(f"bottleneck.{name}" for name in BLOCK),
    "conv.weight",
    "conv.bias",
]
# as LIS2 stores them: features 4, num_blocks 2, one channel in and out, 2-D
SMALL_SHAPES = {
    "encoders.0.0.weight": (4, 1, 3, 3),
    "encoders.0.3.weight": (4, 4, 3, 3),
    "encoders.1.0.weight": (8, 4, 3, 3),
    "encoders.1.3.weight": (8, 8, 3, 3),
    "bottleneck.0.weight": (16, 8, 3, 3),
    "bottleneck.3.weight": (16, 16, 3, 3),
    "upconvs.0.weight": (16, 8, 2, 2),
    "decoders.0.0.weight": (8, 16, 3, 3),
    "decoders.0.3.weight": (8, 8, 3, 3),
    "upconvs.1.weight": (8, 4, 2, 2),
    "decoders.1.0.weight": (4, 8, 3, 3),
    "decoders.1.3.weight": (4, 4, 3, 3),
    "conv.weight": (1, 4, 1, 1),
}


def small(**options) -> UNet:
    torch.manual_seed(0)
    return UNet(features=4, num_blocks=2, **options)


def encoding(channels: int = 2) -> LinPositionEncoding:
    return LinPositionEncoding(
        [VariableEncoding(index=axis, scale=100.0, expand_dims=8) for axis in range(channels)]
    )


def reference(state: dict[str, Tensor], patch: Tensor, num_blocks: int, dim: int) -> Tensor:
    """The forward pass in evaluation, written out with functions over a state dict."""
    conv = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[dim]
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[dim]
    up = {
        1: functional.conv_transpose1d,
        2: functional.conv_transpose2d,
        3: functional.conv_transpose3d,
    }[dim]

    def block(name: str, x: Tensor) -> Tensor:
        for i, n in ((0, 1), (3, 4)):
            x = conv(x, state[f"{name}.{i}.weight"], state[f"{name}.{i}.bias"], padding=1)
            x = functional.batch_norm(
                x,
                state[f"{name}.{n}.running_mean"],
                state[f"{name}.{n}.running_var"],
                state[f"{name}.{n}.weight"],
                state[f"{name}.{n}.bias"],
            )
            x = functional.relu(x)
        return x

    skips, x = [], patch
    for i in range(num_blocks):
        x = block(f"encoders.{i}", x)
        skips.append(x)
        x = pool(x, 2, 2)
    x = block("bottleneck", x)
    for i in range(num_blocks):
        x = up(x, state[f"upconvs.{i}.weight"], state[f"upconvs.{i}.bias"], stride=2)
        x = block(f"decoders.{i}", torch.cat((x, skips[num_blocks - 1 - i]), dim=1))
    return torch.sigmoid(conv(x, state["conv.weight"], state["conv.bias"]))


def random_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values for every entry, unlike those of any fresh network; variances above 0."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape, generator=generator).to(value.dtype) * 0.4 + 0.1
        if "running_var" in name
        else (torch.randn(value.shape, generator=generator) * 0.3).to(value.dtype)
        for name, value in state.items()
    }


@pytest.mark.parametrize(("features", "num_blocks", "expected"), [(16, 3, 483_153), (4, 2, 7_557)])
def test_it_has_as_many_parameters_as_lis2s(features, num_blocks, expected):
    net = UNet(in_channels=1, out_channels=1, features=features, num_blocks=num_blocks, dim=2)
    assert sum(weight.numel() for weight in net.parameters()) == expected


def test_the_state_dict_has_lis2s_names_in_lis2s_order():
    assert len(SMALL_NAMES) == 76
    assert list(small().state_dict()) == SMALL_NAMES


def test_weights_have_lis2s_shapes():
    state = small().state_dict()
    assert {name: tuple(state[name].shape) for name in SMALL_SHAPES} == SMALL_SHAPES


def test_a_state_dict_built_by_hand_with_lis2s_names_loads_and_decides_the_result():
    net = small()
    own = net.state_dict()
    lis2 = random_state({name: own[name] for name in SMALL_NAMES})
    net.load_state_dict(lis2, strict=True)
    patch = torch.randn(2, 1, 16, 16)
    assert torch.equal(net.eval()(patch), reference(lis2, patch, num_blocks=2, dim=2))
    assert all(torch.equal(net.state_dict()[name], lis2[name]) for name in SMALL_NAMES)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("inputs", "outputs", "num_blocks"), [(1, 1, 1), (3, 2, 2)])
def test_the_forward_pass_is_bit_for_bit_the_one_written_out(dim, inputs, outputs, num_blocks):
    net = UNet(
        in_channels=inputs, out_channels=outputs, features=3, num_blocks=num_blocks, dim=dim
    ).eval()
    net.load_state_dict(random_state(net.state_dict()))
    patch = torch.randn(2, inputs, *[8, 12, 4][:dim])
    probabilities = net(patch)
    assert probabilities.shape == (2, outputs, *patch.shape[2:])
    assert torch.equal(probabilities, reference(net.state_dict(), patch, num_blocks, dim))


def test_every_weight_gets_a_gradient():
    net = small(encoder=encoding(), encoder_cat_position="middle")
    net(torch.randn(3, 1, 16, 16), torch.randint(0, 100, (3, 2, 2))).sum().backward()
    assert all(
        weight.grad is not None and bool(weight.grad.isfinite().all())
        for weight in net.parameters()
    )


def test_the_same_seed_gives_the_same_network():
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dimension_and_encoder_pos_are_other_names_of_dim_and_encoder_cat_position():
    net = small(dimension=1, encoder=encoding(1), encoder_pos="after")
    assert (net.dim, net.encoder_cat_position) == (1, "after")
    assert small(dim=3, dimension=3).dim == 3
    assert (small().dim, small().encoder_cat_position) == (2, "before")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": 0}, "features of the U-Net must be at least 1, not 0"),
        ({"num_blocks": 0}, "num_blocks of the U-Net must be at least 1"),
        ({"in_channels": 0}, "in_channels of the U-Net must be at least 1"),
        ({"out_channels": -1}, "out_channels of the U-Net must be at least 1, not -1"),
        ({"dim": 4}, "dim of the U-Net must be one of 1, 2, 3, not 4"),
        ({"dimension": 0}, "must be one of 1, 2, 3, not 0"),
        ({"dim": 2, "dimension": 3}, "dim and dimension are two names of one key"),
        ({"encoder_cat_position": "behind"}, "one of 'before', 'middle', 'after', not 'behind'"),
        (
            {"encoder_cat_position": "after", "encoder_pos": "middle"},
            "encoder_cat_position and encoder_pos are two names of one key",
        ),
    ],
)
def test_a_wrong_argument_is_one_clear_sentence(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        UNet(**options)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((2, 1, 30, 32), "a patch of 30 x 32 px .* must be a multiple of 4 px"),
        ((2, 1, 0, 32), "must be a multiple of 4 px"),
        ((2, 3, 32, 32), "does not fit a U-Net with dim 2 and in_channels 1"),
        ((2, 1, 32), "does not fit a U-Net with dim 2 and in_channels 1"),
        ((1, 1, 4, 4), "one pixel at the bottleneck"),
    ],
)
def test_a_patch_that_does_not_fit_is_one_clear_sentence(shape, sentence):
    with pytest.raises(DataError, match=sentence):
        small()(torch.zeros(shape))


def test_one_patch_of_one_pixel_at_the_bottleneck_is_fine_outside_training():
    assert small().eval()(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 4, 4)


def test_positions_are_not_looked_at_without_an_encoding():
    net, patch = small().eval(), torch.randn(1, 1, 8, 8)
    assert torch.equal(net(patch), net(patch, positions=torch.zeros(1, 2, 2)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_under_bf16_the_probabilities_are_float32_and_keep_their_resolution(channels_last):
    net, patch = small().eval(), torch.randn(2, 1, 32, 32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)  # type: ignore[call-overload]
    with torch.no_grad():
        net.conv.bias.fill_(9.0)  # probabilities near 1: bfloat16 knows 0.9961 and 1 there
        with torch.autocast("cpu", dtype=torch.bfloat16):
            probabilities = net(patch)
    assert probabilities.dtype == torch.float32
    assert 0.9985 < float(probabilities.min()) <= float(probabilities.max()) < 1
    assert not torch.equal(probabilities, probabilities.bfloat16().float())


def test_a_network_in_half_precision_gives_float32_and_one_in_float64_keeps_it():
    patch = torch.randn(2, 1, 8, 8)
    assert small().bfloat16()(patch.bfloat16()).dtype == torch.float32
    assert small().double()(patch.double()).dtype == torch.float64


@pytest.mark.parametrize("place", ["before", "middle", "after"])
def test_it_compiles_as_one_graph_with_the_same_result(place):
    net = small(encoder=encoding(), encoder_cat_position=place).eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    patch, positions = torch.randn(2, 1, 8, 8), torch.randint(0, 100, (2, 2, 2))
    assert torch.equal(compiled(patch, positions), net(patch, positions))


def test_a_copy_and_a_pickled_network_give_the_same_result_and_still_load():
    net = small(encoder=encoding()).eval()
    patch, positions = torch.randn(2, 1, 8, 8), torch.randint(0, 100, (2, 2, 2))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)  # noqa: TID251 - our own object, just written
    for other in (copy.deepcopy(net), again):
        other.load_state_dict(net.state_dict())
        assert torch.equal(other(patch, positions), net(patch, positions))
