"""Steps that change the weights; all but the recording runs anywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from training import data, muon, scenes
from training.export import BUNDLED
from training.features import Anchor
from training.model import Starter, initialise, soften
from training.recipe import PoolConfig, StepConfig
from training.sampling import make_sampler
from training.steps import Learner, Step

FIRST_STEPS = json.loads((Path(__file__).parents[1] / "data" / "training" / "first_steps.json").read_text())
KINDS = {
    "example": {"frames": 2, "priors": 2, "recent": 2},
    "shared": {"frames": 3, "recent": 6},
    "lineup": {},
    "lineup alone": {"encoder_only": True},
    "shared alone": {"encoder_only": True},
}


def weights_of(learner):
    return {key: value.clone() for key, value in learner.model.state_dict().items()}


@pytest.mark.parametrize("name", KINDS)
def test_first_steps_are_those_of_the_program_that_made_the_weights(name, anchor):
    """The figures were written by that program, which was several, before it became this one."""
    family = name.split()[0]
    scene = scenes.SceneConfig(side=64, frames=3, priors=2 if family == "example" else 1)
    config = PoolConfig(family, scene, 8, 16, (1.0, 1.0))
    pool = data.Pool(config, torch.device("cpu"))
    _, arrays = data.SceneStream({"": config}, 0).message(0)
    pool.put({key: torch.from_numpy(array) for key, array in arrays.items()})
    torch.manual_seed(0)
    model = Starter()
    initialise(model, 0)
    learner = Learner(model, 1e-3)
    learner.begin(BUNDLED, (0.3, 0.2))
    step = Step(learner, anchor, make_sampler(StepConfig("x", "", 16, 96, **KINDS[name]), pool), 0.25)
    learner.decay.fill_(0.5)
    torch.manual_seed(1)
    for expected in FIRST_STEPS[name]:
        step.run()
        assert step.figures() == pytest.approx(expected, rel=5e-3, abs=1e-4)


def test_steps_lower_the_loss_of_what_they_see(make_pool, learner, anchor):
    pool = make_pool("example", frames=3, priors=2)
    sampler = make_sampler(StepConfig("x", "", 16, 64, frames=2, priors=2, recent=1), pool)
    step, seen = Step(learner, anchor, sampler, 0.5), []
    learner.decay.fill_(0.5)
    for _ in range(6):
        step.run()
        assert step.count == 1
        seen.append(step.figures())
        assert step.count == 0 and np.isfinite(list(seen[-1].values())).all()
    assert np.mean([x["track_mask"] for x in seen[-2:]]) < seen[0]["track_mask"]
    assert not torch.equal(learner.average["sam.no_mem_embed"], learner.model.sam.no_mem_embed)


def test_the_encoder_alone_changes_where_a_step_says_so(make_pool, learner, anchor):
    step = Step(
        learner, anchor, make_sampler(StepConfig("x", "", 8, 64, encoder_only=True), make_pool("lineup")), 0.5
    )
    begun = weights_of(learner)
    step.run()
    changed = {key for key, value in weights_of(learner).items() if not torch.equal(value, begun[key])}
    learns = ("sam.image_encoder.", "sam.sam_mask_decoder.conv_s", "by_token", "pooled", "kept")
    assert any(key.startswith(learns[0]) for key in changed)
    assert all(key.startswith(learns) for key in changed)
    assert {"likeness", "change", "norm"} <= set(step.figures())


def test_gradients_that_are_no_numbers_change_next_to_nothing(learner):
    begun = weights_of(learner)
    learner.lr.fill_(1e-3)
    for p in learner.model.parameters():
        p.grad = torch.full_like(p, torch.nan)
    assert not torch.isfinite(learner.change())
    for key, value in learner.model.state_dict().items():
        assert torch.allclose(value, begun[key] * (1 - 1e-3 * 0.02), atol=1e-6), key


def test_muon_takes_matrices_a_step_along_their_singular_vectors():
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 40, 64), (2, 96, 32)):
        matrices = torch.randn(shape, generator=generator)
        u, s, v = torch.linalg.svd(muon.orthogonal(matrices, 10), full_matrices=False)
        assert s.min() > 0.6 and s.max() < 1.3
        a, _, b = torch.linalg.svd(matrices, full_matrices=False)
        assert torch.allclose((u @ v), (a @ b), atol=1e-3)
    weight = torch.nn.Parameter(torch.zeros(32, 48, 1, 1))
    weight.grad = torch.randn(weight.shape, generator=generator)
    muon.Muon([weight], lr=0.01, weight_decay=0.0).step()
    # as large a change of an entry as AdamW's, whatever the size of the gradient
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.3)


def test_every_weight_has_one_optimiser(learner):
    names = {parameter: name for name, parameter in learner.model.named_parameters()}
    with_muon, with_adam = (
        [names[p] for group in optimiser.param_groups for p in group["params"]]
        for optimiser in learner.optimisers
    )
    assert sorted(with_muon + with_adam) == sorted(names.values())
    assert "sam.image_encoder.trunk.blocks.0.attn.qkv.weight" in with_muon
    assert "sam.image_encoder.neck.convs.0.conv.weight" in with_muon
    kept = ("pos_embed", "tpos_enc", "mask_tokens", "output_hypernetworks_mlps.0.layers.2", "readout", "bias")
    assert not [name for name in with_muon if any(part in name for part in kept)]


def test_a_run_begins_from_exported_weights_with_softened_attention(learner):
    learner.begin(BUNDLED, (0.5, 0.25))
    bundled, now = load_file(BUNDLED), learner.model.sam.state_dict()
    for k, factor in enumerate((0.5, 0.25)):
        name = f"memory_attention.layers.{k}.cross_attn_image.q_proj.weight"
        assert torch.equal(now[name], factor * bundled[name].float())
        assert torch.equal(learner.average["sam." + name], now[name])
    assert torch.equal(now["no_mem_embed"], bundled["no_mem_embed"].float())
    assert (
        not learner.model.readout.weight.any()
    )  # what is not in the weights begins to learn before it teaches
    with pytest.raises(ValueError, match="shorter"):
        soften(learner.model.sam, (0.5,))


@pytest.mark.gpu
@pytest.mark.parametrize("what", ["example", "shared", "lineup", "lineup alone"])
def test_recorded_steps_give_what_computed_ones_give(make_pool, what):
    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device.")
    device, kind = torch.device("cuda"), KINDS[what]
    pool = make_pool(what.split()[0], "cuda", frames=3, priors=kind.get("priors", 1))
    model = Starter()
    initialise(model, 0)
    learner = Learner(model.to(device), 1e-3)
    learner.begin(BUNDLED, (1.0, 1.0))
    step = Step(
        learner, Anchor(BUNDLED, device), make_sampler(StepConfig("x", "", 48, 64, **kind), pool), 0.5
    )
    key, begun = "likeness" if "alone" in what else "track_mask", weights_of(learner)

    def seen(times):
        figures = []
        for _ in range(times):
            step.run()
            figures.append(step.figures()[key])
        return figures

    learner.lr.zero_()
    plain = seen(20)
    step.warm_up()
    step.record()
    recorded = seen(20)
    assert len(set(recorded)) > 10  # other scenes and prompts each time
    assert np.mean(recorded) == pytest.approx(np.mean(plain), rel=0.05)
    assert all(torch.equal(value, begun[name]) for name, value in weights_of(learner).items())
    learner.lr.fill_(1e-3)
    learner.decay.fill_(0.9)
    learnt = seen(40)
    assert np.mean(learnt[-10:]) < np.mean(recorded)
    moved = [name for name, value in weights_of(learner).items() if not torch.equal(value, begun[name])]
    assert len(moved) > 100 and all(torch.isfinite(value).all() for value in learner.average.values())
