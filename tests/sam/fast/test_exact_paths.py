"""What is computed in another order than the plain formula has it gives what the formula gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam import hiera, prompt_encoder
from napari_samexp.sam.fast import attention, chunks, decoder, reference
from napari_samexp.sam.fast import hiera as fast_hiera
from napari_samexp.sam.fast.attention import attend_on_grid, attend_to_memory
from napari_samexp.sam.fast.chunks import add_in_chunks, in_windows
from napari_samexp.sam.fast.folding import Cached
from napari_samexp.sam.mask_decoder import MaskDecoder
from napari_samexp.sam.position_encoding import axial_rope, rotate, rotate_
from napari_samexp.sam.prompt_encoder import PromptEncoder
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variants import VARIANTS
from napari_samexp.sam.weights.loading import build


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut everything that can be cut, although it is small, at odd places."""
    monkeypatch.setattr(chunks, "CHUNK", 90)
    monkeypatch.setattr(fast_hiera, "CHUNK", 200)
    monkeypatch.setattr(attention, "MANY_KEYS", 23)
    monkeypatch.setattr(attention, "BLOCK", 23)
    monkeypatch.setattr(attention, "CHUNK", 7)
    monkeypatch.setattr(attention, "LOW_PRECISION_CHUNK", 17)


def _close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def _softmax(scores: Tensor, values: Tensor) -> Tensor:
    return (torch.softmax(scores.double(), -1) @ values.double()).float()


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("shift", [0.0, 60.0, -60.0, 200.0, -200.0], ids=str)
@pytest.mark.parametrize("spread", [1.0, 30.0], ids=str)
def test_attention_to_memories_of_any_size_of_scores(shift: float, spread: float) -> None:
    q, k, memory = torch.randn(2, 50, 16), torch.randn(2, 70, 16), torch.randn(2, 70, 6)
    q[..., 0], k[..., 0] = 4.0, shift  # with the scale of 1 / 4, `shift` is added to every score
    k[:, :, 1:] *= spread
    project = nn.Linear(6, 16)
    scores = q.double() @ k.double().transpose(1, 2) / 4
    wanted = project(_softmax(scores, memory))
    _close(attend_to_memory(q, k, memory, project), wanted)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("queries", [1, 13, 14, 17, 28, 51])
def test_any_number_of_queries_looks_at_memories(queries: int) -> None:
    q, k, memory, project = (
        torch.randn(1, queries, 4),
        torch.randn(1, 30, 4),
        torch.randn(1, 30, 3),
        nn.Linear(3, 4),
    )
    scores = q.double() @ k.double().transpose(1, 2) / 2
    wanted = project(_softmax(scores, memory))
    _close(attend_to_memory(q, k, memory, project), wanted)
    short = attend_to_memory(q, k, memory, project, low_precision=True)
    assert float((short - wanted).abs().max()) <= 0.02 * float(wanted.abs().max())


def test_scores_beyond_the_range_are_computed_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    usual = attention._softmax_chunks
    monkeypatch.setattr(attention, "_softmax_chunks", lambda *some: asked.append(1) or usual(*some))
    q, k, memory, project = torch.randn(1, 8, 4), torch.randn(1, 9, 4), torch.randn(1, 9, 3), nn.Linear(3, 4)
    attend_to_memory(q, k, memory, project)
    assert not asked
    attend_to_memory(1000 * q, k, memory, project)
    assert asked


def test_one_query_beyond_the_range_among_many() -> None:
    q, k, memory, project = (
        torch.randn(1, 50, 4),
        torch.randn(1, 30, 4),
        torch.randn(1, 30, 3),
        nn.Linear(3, 4),
    )
    q[:, 3] *= 1000  # none of those that are probed
    wanted = project(_softmax(q.double() @ k.double().transpose(1, 2) / 2, memory))
    _close(attend_to_memory(q, k, memory, project), wanted)


def test_a_model_whose_scores_are_large_is_not_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    divide = attention._divide
    monkeypatch.setattr(attention, "_divide", lambda *some: tried.append(1) or divide(*some))
    q, k, memory, project = torch.randn(1, 60, 4), torch.randn(1, 9, 4), torch.randn(1, 9, 3), nn.Linear(3, 4)
    attend_to_memory(1000 * q, k, memory, project)
    assert not tried
    attend_to_memory(q, k, memory, project)
    assert tried


def test_no_weight_is_in_the_range_that_slows_a_processor() -> None:
    q, k = torch.randn(1, 40, 4), torch.randn(1, 400, 4)
    weights = attend_to_memory(60 * q, k, torch.eye(400)[None], nn.Identity())  # type: ignore[arg-type]
    assert float((torch.softmax(30 * q @ k.transpose(1, 2), -1) < 2.0**-126).float().mean()) > 0.1
    assert not bool(((weights > 0) & (weights < 2.0**-126)).any())


def _seen_precision(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    weighed = attention._unshifted

    def spy(*some: Any) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return weighed(*some)

    monkeypatch.setattr(attention, "_unshifted", spy)
    return seen


def test_short_products_are_nearly_the_same_and_leave_torch_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, k, memory = torch.randn(2, 300, 32), torch.randn(2, 700, 32), torch.randn(2, 700, 6)
    project = nn.Linear(6, 32)
    wanted = attend_to_memory(q, k, memory, project)
    seen = _seen_precision(monkeypatch)
    found = attend_to_memory(q, k, memory, project, low_precision=True)
    assert seen == ["medium", "medium"]
    assert torch.get_float32_matmul_precision() == "highest"
    assert found.dtype == torch.float32
    # bfloat16 rounds a number by at most 2^-9
    assert float((found - wanted).norm() / (wanted - project.bias).norm()) < 0.01
    seen.clear()
    attend_to_memory(q, k, memory, project)
    assert seen == ["highest", "highest"]


def test_short_products_that_fail_leave_torch_as_it_was() -> None:
    q, k, memory, project = torch.randn(1, 8, 4), torch.randn(1, 9, 4), torch.randn(1, 8, 3), nn.Linear(3, 4)
    with pytest.raises(RuntimeError):
        attend_to_memory(q, k, memory, project, low_precision=True)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_program_that_chose_its_precision_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise RuntimeError("a mixture of the legacy and new names")

    chosen: list[str] = []
    q, k, memory, project = torch.randn(1, 8, 4), torch.randn(1, 9, 4), torch.randn(1, 9, 3), nn.Linear(3, 4)
    wanted = attend_to_memory(q, k, memory, project)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    _close(attend_to_memory(q, k, memory, project, low_precision=True), wanted)
    assert chosen == []


def test_queries_of_one_frame_look_at_the_memories_of_several_objects() -> None:
    q, k, memory, project = torch.randn(1, 8, 4), torch.randn(3, 9, 4), torch.randn(3, 9, 3), nn.Linear(3, 4)
    wanted = torch.cat([attend_to_memory(q, k[i : i + 1], memory[i : i + 1], project) for i in range(3)])
    assert torch.equal(attend_to_memory(q, k, memory, project), wanted)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("spread", [1.0, 300.0], ids=str)
def test_attention_with_a_term_for_rows_and_columns(spread: float) -> None:
    q, k, v = torch.randn(2, 3, 20, 8), torch.randn(2, 3, 30, 8), torch.randn(2, 3, 30, 8)
    down, right = spread * torch.randn(2, 3, 20, 5), torch.randn(2, 3, 20, 6)
    bias = (down[..., :, None] + right[..., None, :]).flatten(3)
    _close(attend_on_grid(q, k, v, down, right), _softmax(q @ k.transpose(2, 3) / 8**0.5 + bias, v))


def test_turning_in_place_and_with_complex_numbers_is_turning_pairs() -> None:
    rope = axial_rope(8, (3, 4), torch.device("cpu"))
    x = torch.randn(2, 12, 8)
    cos, sin = rope
    even, odd = x[..., 0::2], x[..., 1::2]
    wanted = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
    _close(rotate(x, rope), wanted)
    part = torch.cat((x, x), dim=1)
    rotate_(part[:, :12], rope)
    _close(part, torch.cat((wanted, x), dim=1))


# ---- windows


def _plain_windows(apply: Callable[[Tensor, int], Tensor], x: Tensor, window: int) -> Tensor:
    """One window after the other."""
    rows = [
        torch.cat(
            [apply(some, window**2 - some.shape[1] * some.shape[2]) for some in band.split(window, dim=2)],
            dim=2,
        )
        for band in x.split(window, dim=1)
    ]
    return torch.cat(rows, dim=1)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("grid_hw", [(28, 28), (30, 17), (9, 14), (5, 3)], ids=str)
@pytest.mark.parametrize("halved", [False, True])
def test_windows_together_are_windows_one_by_one(grid_hw: tuple[int, int], halved: bool) -> None:
    def apply(some: Tensor, absent: int) -> Tensor:
        mixed = some.cumsum(1).cumsum(2) + absent
        return mixed[:, 1::2, 1::2] if halved else mixed

    x = torch.randn(2, *grid_hw, 3)
    if halved:
        x = x[:, : grid_hw[0] // 2 * 2, : grid_hw[1] // 2 * 2]
    assert torch.equal(in_windows(apply, x, 14), _plain_windows(apply, x, 14))


@pytest.mark.usefixtures("_small_pieces")
def test_tokens_in_parts_are_tokens_together() -> None:
    x, layer = torch.randn(2, 10, 11, 5), nn.Linear(5, 5)
    _close(add_in_chunks(x, layer), x + layer(x))


@pytest.fixture(scope="module")
def trunk() -> hiera.Hiera:
    with torch.inference_mode(False):
        made = build(VARIANTS["sam2.1_hiera_tiny"])
        assert isinstance(made, Sam2)
        out = made.image_encoder.trunk.to_empty(device="cpu").requires_grad_(False)
        for parameter in out.parameters():
            parameter.copy_(torch.randn(parameter.shape) / max(8, parameter.shape[-1]) ** 0.5)
    return out


def _padded_formula(block: hiera.Block, x: Tensor) -> Tensor:
    """A windowed block as Meta has it: norm, pad with zeros, attend in whole windows, cut the padding off."""
    size, window = x.shape[1:3], block.window
    y = functional.pad(block.norm1(x), (0, 0, 0, -size[1] % window, 0, -size[0] % window))

    def attend(some: Tensor, _: int) -> Tensor:
        q, k, v = (
            part.flatten(1, 2).unflatten(-1, (block.attn.heads, -1)).transpose(1, 2)
            for part in block.attn.qkv(some).chunk(3, -1)
        )
        mixed = _softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, v)
        return block.attn.proj(mixed.transpose(1, 2).flatten(2)).view(some.shape)

    x = x + _plain_windows(attend, y, window)[:, : size[0], : size[1]]
    return x + block.mlp(block.norm2(x))


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("grid_hw", [(28, 14), (20, 17)], ids=str)
def test_smaller_windows_at_the_border_count_the_padding(
    trunk: hiera.Hiera, grid_hw: tuple[int, int]
) -> None:
    block = next(b for b in trunk.blocks if b.window == 14)
    x = torch.randn(1, *grid_hw, block.norm1.normalized_shape[0])
    _close(block(x), _padded_formula(block, x))


@pytest.mark.parametrize("grid_hw", [(28, 14), (20, 18)], ids=str)
@pytest.mark.parametrize("pool", [False, True])
def test_windows_filled_up_are_windows_of_several_sizes(
    trunk: hiera.Hiera, grid_hw: tuple[int, int], pool: bool
) -> None:
    """What a GPU computes is what a CPU does."""
    block = next(b for b in trunk.blocks if b.window == 14 and b.pool == pool)
    x = torch.randn(2, *grid_hw, block.norm1.normalized_shape[0])
    with reference():
        padded = block(x)
    _close(padded, block(x))


@pytest.mark.usefixtures("_small_pieces")
def test_the_first_blocks_by_rows_of_windows_are_the_blocks_one_by_one(
    trunk: hiera.Hiera, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randn(2, 3, 96, 160)
    assert fast_hiera.nested_blocks(trunk.blocks) == (8, 4)
    found = trunk(pixels)
    monkeypatch.setattr(fast_hiera, "nested_blocks", lambda _: (8, 0))
    for one, other in zip(found, trunk(pixels)):
        _close(one, other)


def test_all_sizes_have_blocks_that_are_nested() -> None:
    for name, variant in VARIANTS.items():
        if name.startswith("sam2"):
            model = build(variant)
            assert isinstance(model, Sam2)
            stages = variant.stages
            assert fast_hiera.nested_blocks(model.image_encoder.trunk.blocks) == (
                8,
                stages[0] + stages[1] + 1,
            )


def test_a_kept_position_map_follows_its_tables_and_the_grid(trunk: hiera.Hiera) -> None:
    first = fast_hiera.cached_position_map(trunk, (8, 8))
    assert fast_hiera.cached_position_map(trunk, (8, 8)) is first
    assert fast_hiera.cached_position_map(trunk, (8, 16)).shape[1:3] == (8, 16)
    with torch.inference_mode(False), torch.no_grad():
        trunk.pos_embed_window += 1
    changed = fast_hiera.cached_position_map(trunk, (8, 8))
    assert torch.equal(changed, trunk.position_map((8, 8)))
    assert not torch.equal(changed, first)


def test_what_is_kept_is_made_anew_when_something_of_it_changes() -> None:
    with torch.inference_mode(False):
        table, calls = torch.zeros(2), []
        cached: Cached[int] = Cached()
        make = lambda: calls.append(1) or len(calls)  # noqa: E731
        assert [cached.get([table], make, 1), cached.get([table], make, 1)] == [1, 1]
        assert cached.get([table], make, 2) == 2
        table += 1
        assert cached.get([table], make, 2) == 3
        assert cached.get([table.clone()], make, 2) == 4


def _decoder(high_res: bool) -> MaskDecoder:
    with torch.inference_mode(False):
        made = MaskDecoder(256, 96, 32, high_res).eval().requires_grad_(False)
        for parameter in made.parameters():
            parameter.normal_(std=0.05)
    return made


@pytest.mark.parametrize("high_res", [True, False], ids=["SAM 2", "SAM 1"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("points", [2, 9, 40])
def test_decoder_on_the_tokens_side_and_in_bands(
    high_res: bool, count: int, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "BAND", 20)
    model, (height, width) = _decoder(high_res), (5, 7)
    features, grid = torch.randn(count, 256, height, width), torch.randn(1, 256, height, width)
    sparse, dense = torch.randn(count, points, 256), torch.randn(1, 256, 1, 1)
    high_res_features = (torch.randn(1, 32, 4 * height, 4 * width), torch.randn(1, 64, 2 * height, 2 * width))
    projected = []
    model.transformer.final_attn_token_to_image.k_proj.register_forward_hook(lambda *_: projected.append(1))
    given = (features, grid, sparse, dense, high_res_features if high_res else None)
    found = model(*given)
    assert bool(projected) == (points == 40)  # with many points the usual way is less work
    with reference():
        expected = model(*given)
    for one, other in zip(found, expected):
        assert (one is None) == (other is None)
        if one is not None:
            _close(one, other)


def test_positions_are_encoded_once_for_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, asked = PromptEncoder(16), []
    usual = prompt_encoder.fourier_points
    monkeypatch.setattr(prompt_encoder, "fourier_points", lambda *some: asked.append(1) or usual(*some))
    encoder.pe_layer.positional_encoding_gaussian_matrix.normal_()
    first = encoder.grid((3, 4))
    assert encoder.grid((3, 4)) is first and len(asked) == 1
    assert encoder.grid((4, 3)).shape == (1, 16, 4, 3) and len(asked) == 2
    with torch.inference_mode(False):
        encoder.pe_layer.positional_encoding_gaussian_matrix = torch.randn(2, 8)
    assert not torch.equal(encoder.grid((3, 4)), first)


@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("sam2.1_hiera_tiny", [(4, 6)] * 3),
        ("sam2.1_hiera_tiny", [(4, 6), (5, 5)]),  # one after the other
        ("sam2.1_hiera_tiny", []),
        ("edgetam", [(4, 6)] * 3),
    ],
    ids=str,
)
def test_keys_of_memories_turned_together(name: str, grids: list[tuple[int, int]]) -> None:
    cross = build(VARIANTS[name]).memory_attention.layers[0].cross_attn_image.to_empty(device="cpu")
    for parameter in cross.parameters():
        nn.init.normal_(parameter, std=0.1)
    length = sum(len(cross.memory_rope(grid, torch.device("cpu"))[0]) for grid in grids)
    keys = torch.randn(2, length + 8, cross.k_proj.in_features)
    apart = cross.rotated_keys(keys, grids)
    with torch.inference_mode(False), torch.enable_grad():
        together = cross.rotated_keys(keys.clone(), grids)
    _close(together, apart)
