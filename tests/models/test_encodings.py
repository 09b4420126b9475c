from __future__ import annotations

import jsonargparse
import pytest
import torch
import yaml

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.models import (
    IdentityPositionEncoding,
    LinPositionEncoding,
    PositionEncoding,
    SinPositionEncoding,
    UNet,
    VariableEncoding,
)
from lis2_lightning.models.encodings import resize

# tiles of 32 px at (row, column) = (10, 1000), (40, 7000)
TILES = torch.tensor([[[10, 42], [1000, 1032]], [[40, 72], [7000, 7032]]])
ROW = VariableEncoding(index=0, scale=1800.0, offset=0.003, angle=180.0, expand_dims=32)
COLUMN = VariableEncoding(index=1, scale=114000.0, offset=0.003, angle=90.0, expand_dims=32)
PLACES = ["before", "middle", "after"]


def encodings() -> dict[str, PositionEncoding]:
    return {
        "lin": LinPositionEncoding([COLUMN, ROW]),
        "sin": SinPositionEncoding([COLUMN, ROW]),
        "identity": IdentityPositionEncoding(),
    }


def unet(**options) -> UNet:
    torch.manual_seed(0)
    return UNet(features=4, num_blocks=2, **options)


def test_lin_is_the_first_pixel_over_the_scale_and_its_channels_follow_the_axes():
    code = LinPositionEncoding([COLUMN, ROW])(TILES)
    assert code.shape == (2, 2, 32, 32)
    expected = torch.tensor([[10 / 1800, 1000 / 114000], [40 / 1800, 7000 / 114000]])
    assert torch.equal(code, expected[:, :, None, None].expand(2, 2, 32, 32))


def test_sin_is_lis2s_formula():
    code = SinPositionEncoding([ROW, COLUMN])(TILES, size=(1, 1)).flatten(1)
    starts = torch.tensor([[10.0, 1000.0], [40.0, 7000.0]], dtype=torch.float64)
    for channel, v in enumerate((ROW, COLUMN)):
        assert v.angle is not None
        degrees = v.scale - starts[:, channel] * v.offset + v.angle
        expected = torch.abs(torch.cos(degrees * torch.pi / v.angle * 2))
        torch.testing.assert_close(code[:, channel].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["lin", "sin"])
def test_positions_mean_the_same_in_every_shape_they_come_in(name):
    encoding = encodings()[name]
    expected = encoding(TILES)
    assert expected.dtype == torch.float32
    assert torch.equal(encoding(TILES[..., None].double()), expected)  # LIS2's patches.h5
    assert torch.equal(encoding(TILES[..., 0]), expected)  # corners alone


def test_without_unsqueeze_a_value_stays_a_value_until_a_size_is_asked_for():
    lin = LinPositionEncoding([VariableEncoding(index=0, scale=10.0, unsqueeze=False)])
    assert lin(TILES).tolist() == [[1.0], [4.0]]
    assert lin(TILES, size=(2, 3)).tolist() == [[[[1.0] * 3] * 2], [[[4.0] * 3] * 2]]


def test_identity_gives_positions_back_and_fills_maps_with_them():
    identity = IdentityPositionEncoding()
    assert torch.equal(identity(TILES), TILES)
    maps = identity(TILES, size=(2, 2))
    assert maps.shape == (2, 4, 2, 2)
    assert maps[1, :, 0, 1].tolist() == [40.0, 72.0, 7000.0, 7032.0]


def test_identity_takes_maps_and_averages_them_down():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    smaller = IdentityPositionEncoding(num_channels=1)(maps, size=(2, 2))
    assert smaller.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


def test_resizing_to_the_same_size_costs_nothing():
    maps = torch.rand(1, 2, 4, 4)
    assert resize(maps, (4, 4)) is maps


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["lin", "sin", "identity"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_an_encoding_joins_at_each_place_in_each_dimension(name, place, dim):
    encoding = encodings()[name]
    if dim != 2:
        variables = [VariableEncoding(index=axis, scale=9.0, angle=7.0) for axis in range(dim)]
        encoding = {
            "lin": LinPositionEncoding(variables),
            "sin": SinPositionEncoding(variables),
            "identity": IdentityPositionEncoding(2 * dim),
        }[name]
    net = unet(dim=dim, encoder=encoding, encoder_cat_position=place)
    positions = torch.randint(0, 50, (2, dim, 2))
    assert net(torch.randn(2, 1, *[8] * dim), positions).shape == (2, 1, *[8] * dim)


@pytest.mark.parametrize("place", PLACES)
def test_where_a_tile_lies_changes_the_result(place):
    net = unet(encoder=encodings()["lin"], encoder_cat_position=place).eval()
    patch = torch.randn(2, 1, 8, 8)
    assert not torch.equal(net(patch, TILES), net(patch, TILES.flip(0)))


@pytest.mark.parametrize(
    ("place", "name", "shape"),
    [
        ("before", "encoders.0.0.weight", (4, 3, 3, 3)),
        ("middle", "upconvs.0.weight", (18, 8, 2, 2)),
        ("after", "conv.weight", (1, 6, 1, 1)),
    ],
)
def test_an_encoding_widens_one_layer_and_adds_no_name(place, name, shape):
    plain = unet().state_dict()
    state = unet(encoder=encodings()["lin"], encoder_cat_position=place).state_dict()
    assert list(state) == list(plain)
    assert [key for key in state if state[key].shape != plain[key].shape] == [name]
    assert tuple(state[name].shape) == shape


@pytest.mark.parametrize("place", PLACES)
def test_weights_that_know_no_encoding_load_and_give_their_own_result(place):
    plain = unet().eval()
    net = unet(encoder=encodings()["sin"], encoder_cat_position=place).eval()
    net.load_state_dict(plain.state_dict(), strict=True)
    patch = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(net(patch, TILES), plain(patch))


def test_weights_load_where_the_network_is_a_part_of_another():
    part = unet(encoder=encodings()["lin"])
    torch.nn.Sequential(part).load_state_dict(torch.nn.Sequential(unet()).state_dict())
    widened = part.get_parameter("encoders.0.0.weight")
    assert torch.equal(widened[:, 1:], torch.zeros(4, 2, 3, 3))


def test_weights_of_any_other_width_are_still_refused():
    net = unet(encoder=encodings()["lin"])
    with pytest.raises(RuntimeError, match=r"size mismatch for encoders\.0\.0\.weight"):
        net.load_state_dict(unet(in_channels=4).state_dict())


def test_a_batch_without_positions_is_one_clear_sentence():
    with pytest.raises(DataError, match="the batch has no positions"):
        unet(encoder=encodings()["lin"])(torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: LinPositionEncoding([]), "vars_config is empty"),
        (lambda: VariableEncoding(index=-1), "index of at least 0"),
        (lambda: VariableEncoding(index=0, expand_dims=0), "expand_dims of at least 1"),
        (lambda: VariableEncoding(index=0, scale=0.0), "must not be 0"),
        (lambda: SinPositionEncoding([VariableEncoding(index=1)]), "needs an angle .* index 1"),
        (
            lambda: LinPositionEncoding([ROW, VariableEncoding(index=1, unsqueeze=False)]),
            "unsqueeze must be the same",
        ),
        (
            lambda: LinPositionEncoding([ROW, VariableEncoding(index=1, expand_dims=2)]),
            "expand_dims must be the same",
        ),
        (lambda: IdentityPositionEncoding(0), "num_channels must be at least 1, not 0"),
    ],
)
def test_a_wrong_encoding_is_one_clear_sentence(build, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build()


@pytest.mark.parametrize(
    ("name", "positions", "sentence"),
    [
        ("lin", torch.zeros(2, 1, 2), "index 1, but positions of shape .* have 1 axes"),
        ("lin", torch.zeros(2), "must have shape"),
        ("identity", torch.zeros(2, 3), "do not have 4 channels"),
    ],
)
def test_positions_of_another_shape_are_one_clear_sentence(name, positions, sentence):
    with pytest.raises(DataError, match=sentence):
        encodings()[name](positions, size=(4, 4))


def build_with_jsonargparse(text: str) -> UNet:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(torch.nn.Module, "model")
    config = parser.parse_object({"model": yaml.safe_load(text)})
    again = parser.parse_string(parser.dump(config))  # what --print_config shows loads back
    model = parser.instantiate(again).model
    assert isinstance(model, UNet)
    return model


def test_jsonargparse_builds_it_with_a_nested_encoder():
    net = build_with_jsonargparse("""
        class_path: lis2_lightning.models.UNet
        init_args:
          in_channels: 1
          out_channels: 1
          features: 4
          dimension: 2
          num_blocks: 2
          encoder:
            class_path: lis2_lightning.models.LinPositionEncoding
            init_args:
              vars_config:
                - {index: 1, expand_dims: 32, scale: 114000, offset: 0, unsqueeze: true, angle: 180}
                - {index: 0, expand_dims: 32, scale: 1800., offset: 0, unsqueeze: true, angle: 180.}
          encoder_cat_position: middle
    """)
    assert isinstance(net.encoder, LinPositionEncoding)
    assert net.encoder_cat_position == "middle"
    assert net(torch.zeros(2, 1, 8, 8), TILES).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("name", ["IdentityPositionEncoding", "SinPositionEncoding"])
def test_jsonargparse_finds_an_encoding_by_its_class(name):
    arguments = "{vars_config: [{index: 0, angle: 90}]}" if name.startswith("Sin") else "{}"
    net = build_with_jsonargparse(f"""
        class_path: lis2_lightning.models.UNet
        init_args:
          encoder: {{class_path: lis2_lightning.models.{name}, init_args: {arguments}}}
    """)
    assert type(net.encoder).__name__ == name


def test_jsonargparse_refuses_an_unknown_key():
    with pytest.raises(jsonargparse.ArgumentError, match="width_of_net"):
        build_with_jsonargparse("""
            class_path: lis2_lightning.models.UNet
            init_args: {width_of_net: 4}
        """)
