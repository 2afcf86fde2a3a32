"""Encode, segment, remember: every kind of image, side and prompt, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from napari_samexp.errors import ImageError, PromptError, SettingsError
from napari_samexp.images import to_rgb8
from napari_samexp.sam import Memory, fast, load_model
from napari_samexp.sam.features import place
from napari_samexp.types import Prompt
from tests import tiny_run
from tests.parity import golden, parity

RANDOM = np.random.default_rng(8)
HEIGHT, WIDTH = 40, 60
RGB = RANDOM.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
CLICK = Prompt.from_lists([[20, 12]])
PROMPTS = {
    "one click": CLICK,
    "clicks": Prompt.from_lists([[20, 12], [30, 20]], [[5, 35]]),
    "background alone": Prompt.from_lists(background=[[5, 35]]),
    "box": Prompt.from_lists(box=[5, 5, 40, 30]),
    "box and click": Prompt.from_lists([[20, 12]], box=[5, 5, 40, 30]),
    "nothing": Prompt(),
    "corners": Prompt.from_lists([[-0.5, -0.5], [WIDTH - 0.5, HEIGHT - 0.5]]),
    "box beyond the edge": Prompt.from_lists(box=[-20, -20, WIDTH + 20, 10]),
}


def step_of(model: Any) -> int:
    return 16 if model.variant.family == "SAM 1" else 32


# ---- images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.float16, bool])
@pytest.mark.parametrize("axes", [(), (1,), (3,), (4,)], ids=["grey", "1", "3", "4"])
def test_any_image_is_encoded_as_its_8_bit_colours(any_model: Any, axes: tuple[int, ...], dtype: Any) -> None:
    image = (RANDOM.random((HEIGHT, WIDTH, *axes)) * (1 if np.dtype(dtype).kind == "f" else 255)).astype(
        dtype
    )
    features = any_model.encode(image, side=64)
    assert features.embedding.shape == (1, any_model.variant.d_model, 4, 4)
    assert features.transform.image_hw == (HEIGHT, WIDTH)
    assert torch.equal(features.embedding, any_model.encode(to_rgb8(image), side=64).embedding)
    assert features.embedding.isfinite().all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((HEIGHT, WIDTH, 2), np.uint8),
        np.zeros((2, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros(HEIGHT, np.uint8),
        np.zeros((0, WIDTH, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), complex),
        np.full((HEIGHT, WIDTH), "red"),
        np.full((HEIGHT, WIDTH), np.nan),
        None,
    ],
    ids=["two channels", "a stack", "a line", "empty", "complex", "words", "not a number", "None"],
)
def test_what_is_no_image_is_refused(any_model: Any, image: Any) -> None:
    with pytest.raises(ImageError):
        any_model.encode(image)


def test_a_images_memory_layout_does_not_matter(any_model: Any) -> None:
    read_only = RGB[::-1, ::-1].copy()[::-1, ::-1]
    read_only.flags.writeable = False
    expected = any_model.encode(RGB).embedding
    assert torch.equal(any_model.encode(read_only).embedding, expected)
    assert torch.equal(any_model.encode(np.asfortranarray(RGB)).embedding, expected)
    assert torch.equal(any_model.encode(np.repeat(RGB, 2, 1)[:, ::2]).embedding, expected)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20000), (20000, 1), (2, 700), (33, 1)])
def test_tiny_and_elongated_images(any_model: Any, height: int, width: int, square: bool) -> None:
    image = RANDOM.integers(0, 255, (height, width, 3), np.uint8)
    features = any_model.encode(image, side=64, square=square)
    assert max(features.grid_hw) <= 4  # the work does not grow with the image
    prediction = any_model.segment(features, Prompt.from_lists([[width - 1, height - 1]]))
    assert prediction.mask().shape == (height, width)
    assert np.isfinite(prediction.image_logits()).all()


# ---- sides and aspects


@pytest.mark.parametrize("times", [1, 2, 3, 5, np.int64(4)])
def test_every_multiple_of_the_models_step_is_a_side(any_model: Any, times: int) -> None:
    side = times * step_of(any_model)
    features = any_model.encode(RGB, side=side)
    assert features.grid_hw == (side // 16, side // 16)
    assert any_model.segment(features, CLICK).logits.shape == (4, side // 4, side // 4)


def test_without_a_side_the_model_takes_its_own(any_model: Any) -> None:
    size = any_model.variant.image_size // 16
    assert any_model.encode(RGB).grid_hw == (size, size)


@pytest.mark.parametrize("side", [0, -32, 8, 33, 100, 64.0, "64", True, 4128, 2**40, [64]])
def test_another_side_is_refused_with_what_is_needed(any_model: Any, side: Any) -> None:
    with pytest.raises(SettingsError, match=f"multiple of {step_of(any_model)}"):
        any_model.encode(RGB, side=side)


def test_sam_2_needs_twice_the_step_of_sam_1(models: dict[str, Any]) -> None:
    assert models["SAM 1"].encode(RGB, side=48).grid_hw == (3, 3)
    with pytest.raises(SettingsError, match="multiple of 32"):
        models["SAM 2"].encode(RGB, side=48)


@pytest.mark.parametrize(
    ("hw", "side", "content1", "input1", "input2"),
    [
        ((40, 80), 128, (64, 128), (64, 128), (64, 128)),
        ((80, 40), 128, (128, 64), (128, 64), (128, 64)),
        ((50, 80), 128, (80, 128), (80, 128), (64, 128)),  # 80 lies between 64 and 96
        ((70, 80), 64, (56, 64), (64, 64), (64, 64)),
        ((1, 900), 64, (1, 64), (16, 64), (32, 64)),
        ((64, 64), 64, (64, 64), (64, 64), (64, 64)),
    ],
)
def test_a_kept_aspect_is_rounded_to_the_models_step(
    models: dict[str, Any], hw: Any, side: int, content1: Any, input1: Any, input2: Any
) -> None:
    of1 = models["SAM 1"].encode(np.zeros(hw, np.uint8), side=side, square=False).transform
    assert (of1.image_hw, of1.content_hw, of1.input_hw) == (hw, content1, input1)
    for family in ("SAM 2", "SAM 2.1"):
        of2 = models[family].encode(np.zeros(hw, np.uint8), side=side, square=False).transform
        assert (of2.image_hw, of2.content_hw, of2.input_hw) == (hw, input2, input2)


def test_a_square_is_padded_by_sam_1_and_stretched_by_sam_2(models: dict[str, Any]) -> None:
    variants = {family: model.variant for family, model in models.items()}
    assert place(variants["SAM 1"], (40, 80), 160).content_hw == (80, 160)
    assert place(variants["SAM 1"], (40, 80), 160).input_hw == (160, 160)
    assert place(variants["SAM 2"], (40, 80), 160).content_hw == (160, 160)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("hw", [(40, 60), (60, 40), (64, 64), (31, 77)])
def test_images_and_inputs_share_their_pixels(any_model: Any, hw: tuple[int, int], square: bool) -> None:
    """A mask of the input that is right of a place is right of it in the image too."""
    transform = any_model.encode(np.zeros(hw, np.uint8), side=64, square=square).transform
    split = np.array([[hw[1] * 0.4, hw[0] * 0.7]], np.float32)
    x = float(transform.to_input(split)[0, 0])
    low = torch.linspace(0, transform.input_hw[1], 2 * transform.input_hw[1] // 4 + 1)[1::2] - x
    logits = transform.to_image(low.expand(1, transform.input_hw[0] // 4, -1))[0]
    edge = int((logits[0] < 0).sum())
    assert logits.shape == hw
    assert edge == pytest.approx(split[0, 0], abs=1)


# ---- segment


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_every_prompt_gives_four_choices(any_model: Any, prompt: Prompt) -> None:
    features = any_model.encode(RGB, side=64)
    prediction = any_model.segment(features, prompt)
    assert prediction.logits.shape == (4, 16, 16)
    assert prediction.logits.dtype == torch.float32
    assert prediction.iou.shape == (4,)
    assert prediction.iou.dtype == np.float32
    assert prediction.best in range(4)
    for index in (None, 0, 1, 2, 3):
        mask = prediction.mask(index)
        assert mask.shape == (HEIGHT, WIDTH)
        assert mask.dtype == bool
        assert (mask == (prediction.image_logits(index) > 0)).all()
    assert (prediction.mask() == prediction.mask(prediction.best)).all()
    if any_model.variant.family == "SAM 1":
        assert prediction.presence is None
        assert prediction.pointers is None
    else:
        assert isinstance(prediction.presence, float)
        assert prediction.pointers.shape == (4, any_model.variant.d_model)
        assert ((prediction.iou > 0) & (prediction.iou < 1)).all()


def test_prompts_tell_masks_apart(any_model: Any) -> None:
    features = any_model.encode(RGB, side=64)
    shown = [any_model.segment(features, prompt).logits for prompt in PROMPTS.values()]
    for i, one in enumerate(shown):
        assert not any(torch.equal(one, other) for other in shown[:i])


@pytest.mark.parametrize(
    ("name", "several"), [("one click", True), ("nothing", True), ("clicks", False), ("box", False)]
)
def test_alternatives_are_for_prompts_that_may_mean_several_things(
    sam1: Any, name: str, several: bool
) -> None:
    prediction = sam1.segment(sam1.encode(RGB, side=64), PROMPTS[name])
    best = 1 + int(prediction.iou[1:].argmax())
    assert prediction.best == (best if several else 0)


@pytest.mark.parametrize("name", PROMPTS)
def test_multimask_decides_itself_if_asked(any_model: Any, name: str) -> None:
    features = any_model.encode(RGB, side=64)
    many = any_model.segment(features, PROMPTS[name], multimask=True)
    assert many.best == 1 + int(many.iou[1:].argmax())
    assert any_model.segment(features, PROMPTS[name], multimask=False).best in (0, many.best)


def test_an_unstable_single_mask_gives_way_to_an_alternative(memory_model: Any) -> None:
    """A mask that hardly changes with its threshold stays; see the dynamic multimask of sam2."""
    features = memory_model.encode(RGB, side=64)
    prediction = memory_model.segment(features, PROMPTS["box"])
    single = prediction.logits[0]
    share = float((single > 0.05).sum() / (single > -0.05).sum())
    assert (prediction.best == 0) == (share >= 0.98)
    assert prediction.best_pointer == 0


@pytest.mark.parametrize("index", [-1, 4, 100])
def test_a_mask_choice_that_is_not_there_is_refused(any_model: Any, index: int) -> None:
    prediction = any_model.segment(any_model.encode(RGB, side=64), CLICK)
    for ask in (prediction.mask, prediction.image_logits, prediction.require_choice):
        with pytest.raises(SettingsError, match=f"{index}; this prediction has choices 0 to 3"):
            ask(index)


@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (7, 23), (HEIGHT, WIDTH), (1, 1)])
def test_mask_logits_of_any_size_are_a_start(any_model: Any, shape: tuple[int, int]) -> None:
    features = any_model.encode(RGB, side=64)
    mask = np.linspace(-8, 8, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    started = any_model.segment(features, CLICK, mask_logits=mask)
    assert started.logits.shape == (4, 16, 16)
    assert not torch.equal(started.logits, any_model.segment(features, CLICK).logits)


def test_mask_logits_are_resized_to_the_grid(any_model: Any) -> None:
    features = any_model.encode(RGB, side=64)
    small = RANDOM.normal(size=(16, 16)).astype(np.float32)
    large = np.repeat(np.repeat(small, 2, 0), 2, 1)
    ours, theirs = (any_model.segment(features, CLICK, mask_logits=mask).logits for mask in (small, large))
    assert torch.allclose(ours, theirs, rtol=0, atol=0.2 * float(ours.abs().max()))
    reversed_view = small[:, ::-1].copy()[:, ::-1]
    assert torch.equal(any_model.segment(features, CLICK, mask_logits=reversed_view).logits, ours)


@pytest.mark.parametrize("shape", [(), (16,), (1, 16, 16), (0, 16)])
def test_mask_logits_of_another_shape_are_refused(any_model: Any, shape: tuple[int, ...]) -> None:
    features = any_model.encode(RGB, side=64)
    with pytest.raises(ImageError, match="mask logits"):
        any_model.segment(features, CLICK, mask_logits=np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt.from_lists([[WIDTH, 5]]),
        Prompt.from_lists([[5, HEIGHT]]),
        Prompt.from_lists([[5, 5]], [[-1, 5]]),
        Prompt.from_lists(box=[WIDTH + 1, 2, WIDTH + 9, 9]),
        Prompt.from_lists([[5, 5]], box=[2, -9, 9, -1]),
    ],
    ids=["right", "below", "background left", "box right", "box above"],
)
def test_a_prompt_outside_the_image_is_refused(any_model: Any, prompt: Prompt) -> None:
    with pytest.raises(PromptError, match=f"outside the image, which is {WIDTH} wide and {HEIGHT} high"):
        any_model.segment(any_model.encode(RGB, side=64), prompt)


# ---- remember


@pytest.mark.parametrize("index", [None, 0, 1, 2, 3])
def test_a_memory_is_of_the_chosen_mask(memory_model: Any, index: int | None) -> None:
    features = memory_model.encode(RGB, side=64, square=False)
    prediction = memory_model.segment(features, CLICK)
    memory = memory_model.remember(features, prediction, index)
    assert isinstance(memory, Memory)
    packed = memory_model.variant.family == "EdgeTAM"
    assert memory.spatial.shape == (memory_model.variant.mem_dim, *((1, 28) if packed else features.grid_hw))
    chosen = prediction.best if index is None else index
    assert torch.equal(memory.pointer, prediction.pointers[chosen])
    same = memory_model.remember(features, prediction, chosen)
    assert torch.equal(memory.spatial, same.spatial)
    others = [memory_model.remember(features, prediction, i).spatial for i in range(4) if i != chosen]
    masks = [prediction.logits[i] > 0 for i in range(4) if i != chosen]
    for other, mask in zip(others, masks):
        assert torch.equal(memory.spatial, other) == torch.equal(prediction.logits[chosen] > 0, mask)


def test_a_mask_choice_that_is_not_there_cannot_be_remembered(memory_model: Any) -> None:
    features = memory_model.encode(RGB, side=64)
    with pytest.raises(SettingsError, match="choices 0 to 3"):
        memory_model.remember(features, memory_model.segment(features, CLICK), 4)


def test_a_given_mask_is_remembered_at_its_place(memory_model: Any) -> None:
    features = memory_model.encode(RGB, side=64)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:30, 10:35] = True
    prediction = memory_model.from_mask(features, mask)
    assert (prediction.mask() != mask).mean() < 0.1
    assert prediction.presence > 0
    memory = memory_model.remember(features, prediction)
    moved = memory_model.remember(features, memory_model.from_mask(features, mask[::-1, ::-1]))
    assert not torch.equal(memory.spatial, moved.spatial)


def test_an_empty_mask_is_an_absent_object(memory_model: Any) -> None:
    features = memory_model.encode(RGB, side=64)
    prediction = memory_model.from_mask(features, np.zeros((HEIGHT, WIDTH), bool))
    assert prediction.presence < 0
    assert not prediction.mask().any()
    assert torch.equal(memory_model.remember(features, prediction).pointer, memory_model.no_obj_ptr[0])


@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT), (HEIGHT, WIDTH, 1), (64, 64)])
def test_a_mask_of_another_size_is_refused(memory_model: Any, shape: tuple[int, ...]) -> None:
    features = memory_model.encode(RGB, side=64)
    with pytest.raises(ImageError, match="one value a pixel"):
        memory_model.from_mask(features, np.ones(shape, bool))


# ---- position encodings


def added_by_encoder(model: Any, side: int, square: bool) -> torch.Tensor:
    """Return what the encoder adds between its patch embedding and its first block, (C, h, w)."""
    encoder = model.image_encoder if model.variant.family == "SAM 1" else model.image_encoder.trunk
    with (
        fast.reference(),  # which does not take the grid apart
        golden.outputs_of({"patches": encoder.patch_embed}) as out,
        golden.inputs_of({"tokens": encoder.blocks[0]}) as given,
    ):
        model.encode(RGB, side=side, square=square)
    return (given["tokens"][0].double() - out["patches"].double())[0].permute(2, 0, 1)


@pytest.mark.parametrize(("side", "square"), [(64, True), (128, True), (160, True), (96, False)])
def test_the_map_is_what_the_encoder_adds(placed_model: Any, side: int, square: bool) -> None:
    added = added_by_encoder(placed_model, side, square)
    shown = placed_model.position_encoding(added.shape[1:]).double()
    assert shown.shape == added.shape
    assert float((shown - added).abs().max() / added.abs().max()) < 1e-5


@pytest.mark.parametrize("grid", [(2, 2), (1, 1), (5, 40), (64, 3), (32, 32), (100, 70)])
@pytest.mark.parametrize("tile", [True, False])
def test_maps_have_any_height_and_width(placed_model: Any, grid: tuple[int, int], tile: bool) -> None:
    shown = placed_model.position_encoding(grid, window_tile=tile)
    assert shown.shape == (placed_model.variant.embed_dim, *grid)
    assert shown.isfinite().all()


@pytest.mark.parametrize("grid", [(2, 2), (24, 40), (30, 13)])
def test_the_tile_is_the_window_table_repeated(hiera_model: Any, grid: tuple[int, int]) -> None:
    tiled, plain = (hiera_model.position_encoding(grid, window_tile=tile) for tile in (True, False))
    table = hiera_model.image_encoder.trunk.pos_embed_window[0]
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    expected = table[:, y % table.shape[1], x % table.shape[2]]
    assert torch.allclose(tiled - plain, expected, atol=1e-5)


def test_without_the_tile_a_tables_own_grid_is_the_table(hiera_model: Any) -> None:
    table = hiera_model.image_encoder.trunk.pos_embed[0]
    assert torch.allclose(
        hiera_model.position_encoding(tuple(table.shape[1:]), window_tile=False), table, atol=1e-6
    )


def test_sam_1_has_a_table_and_no_tile(sam1: Any) -> None:
    table = sam1.image_encoder.pos_embed[0].permute(2, 0, 1)
    for tile in (True, False):
        assert torch.equal(sam1.position_encoding(tuple(table.shape[1:]), window_tile=tile), table)


# ---- number types
#
# How far bfloat16 and float16 drift from float32, as measured on a CPU over the three families:
#   position maps, of their largest value: bfloat16 0.55 to 0.66 %, float16 0.06 to 0.08 %;
#   IoU of the masks, over 36 masks a family together: bfloat16 0.987 to 0.992 where all of it is rounded, which
#   EdgeTAM's still is, float16 0.998 to 0.999.

MAPS = {"bfloat16": 1e-2, "float16": 1.5e-3}
MASKS = {"bfloat16": 0.97, "float16": 0.99}


@pytest.fixture(scope="module")
def half_models(models: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (family, dtype): load_model(
            parity.SELECTION / f"{stem}_state.safetensors",
            device="cpu",
            dtype=dtype,
            variant=models[family].variant,
        )
        for family, stem in golden.FAMILIES.items()
        for dtype in MAPS
    }


@pytest.mark.parametrize("dtype", MAPS)
@pytest.mark.parametrize("family", ["SAM 1", "SAM 2", "SAM 2.1"])
def test_maps_drift_by_a_rounding(family: str, dtype: str, models: dict[str, Any], half_models: Any) -> None:
    for grid in ((2, 2), (8, 8), (10, 10), (24, 40), (7, 13)):
        exact = models[family].position_encoding(grid)
        rounded = half_models[family, dtype].position_encoding(grid).float()
        assert float((rounded - exact).abs().max() / exact.abs().max()) < MAPS[dtype]


@pytest.mark.parametrize("dtype", MASKS)
@pytest.mark.parametrize("family", golden.FAMILIES)
def test_masks_drift_little(family: str, dtype: str, models: dict[str, Any], half_models: Any) -> None:
    both = either = 0
    for image in (RGB, tiny_run.drawn_frames(1)[0], RGB[::-1]):
        exact, rounded = models[family], half_models[family, dtype]
        features = exact.encode(image), rounded.encode(image)
        for name in ("one click", "clicks", "box"):
            predictions = [model.segment(of, PROMPTS[name]) for model, of in zip((exact, rounded), features)]
            for choice in range(4):
                one, other = (prediction.mask(choice) for prediction in predictions)
                both, either = both + (one & other).sum(), either + (one | other).sum()
    assert either > 10_000
    assert both / either > MASKS[dtype]


@pytest.mark.parametrize("dtype", MASKS)
@pytest.mark.parametrize("family", ["SAM 2", "SAM 2.1", "EdgeTAM"])
def test_a_half_precision_model_remembers_and_recalls(family: str, dtype: str, half_models: Any) -> None:
    model = half_models[family, dtype]
    features = model.encode(RGB)
    memory = model.remember(features, model.segment(features, CLICK))
    assert memory.spatial.dtype == memory.pointer.dtype == model.dtype
    recalled = model.recall(
        features.embedding,
        [memory.spatial[None]],
        torch.tensor([[6]]),
        memory.pointer[None, None],
        torch.tensor([[0.1]]),
    )
    assert recalled.dtype == model.dtype
    assert recalled.isfinite().all()
    tracked = model.track(recalled, features.high_res_features, features.transform.input_hw)
    assert all(part.isfinite().all() for part in tracked)


@pytest.mark.parametrize("dtype", MASKS)
@pytest.mark.parametrize("family", golden.FAMILIES)
def test_no_layer_changes_the_number_type(family: str, dtype: str, half_models: Any) -> None:
    """What a layer with weights gives is of the weights' own type, and so is what it is given."""
    model = half_models[family, dtype]
    before = {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    leaves = {
        name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))
    }
    leaves = {name: module for name, module in leaves.items() if not list(module.children())}
    with golden.outputs_of(leaves) as out, golden.inputs_of(leaves) as given:
        features = model.encode(RGB)
        prediction = model.segment(features, CLICK, mask_logits=np.zeros((9, 9), np.float32))
        if family != "SAM 1":
            memory = model.remember(features, prediction)
            spatial, slots, times = [memory.spatial[None]], torch.tensor([[6]]), torch.tensor([[0.1]])
            model.recall(features.embedding, spatial, slots, memory.pointer[None, None], times)
    assert len(out) > 40
    own = {name: next(leaves[name].parameters()).dtype for name in out}
    assert {name: tensor.dtype for name, tensor in out.items()} == own
    kept = {name: tensors[0].dtype for name, tensors in given.items() if tensors}
    assert {kind for name, kind in kept.items() if own[name] == model.dtype} == {model.dtype}
    after = {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    assert before == after


# ---- for training


@pytest.mark.parametrize("family", golden.FAMILIES)
def test_what_was_cached_while_tracking_can_be_trained_with(family: str, models: dict[str, Any]) -> None:
    model = copy.deepcopy(models[family]).requires_grad_(True)
    features = model.encode(RGB, side=96)
    prediction = model.segment(features, CLICK)
    if family == "SAM 1":
        model.image_encoder(torch.rand(1, 3, 96, 96)).sum().backward()
        assert model.image_encoder.pos_embed.grad.abs().sum() > 0
        return
    memory = model.remember(features, prediction)
    embedding, _ = model.image_features(torch.rand(1, 3, 96, 96))
    spatial, slots, times = [memory.spatial.clone()[None]], torch.tensor([[6]]), torch.tensor([[0.1]])
    model.recall(embedding, spatial, slots, memory.pointer.clone()[None, None], times).sum().backward()
    trunk = model.image_encoder.trunk
    first = trunk.body.stem.conv1.c.weight if family == "EdgeTAM" else trunk.pos_embed
    assert first.grad.abs().sum() > 0
    assert model.maskmem_tpos_enc.grad[6].abs().sum() > 0
