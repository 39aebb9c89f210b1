"""Vision-language models: what they compute of pictures in packed forests is what `transformers` computes of
each path by itself, given the pixels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_kit import bpe_of, model_of, on_disk, path_to, stir
from vlm_kit import KINDS, MARKS, SIDE, shown, vlm_on_disk

from forethought.core.errors import UserError
from forethought.core.sight import MARK, Shown
from forethought.core.types import Batch, Objective, Request, Segment, Term
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest import packing
from forethought.engines.torch.forest.packing import pack
from forethought.engines.torch.models.exact_pictures import plain_logits
from forethought.engines.torch.models.loading import from_path
from forethought.learn.losses import term
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec

CLOSE = 1e-4
WIDE, HIGH, LARGE = (f"{MARK}{size}/{seed}" for size, seed in (("16x24", 1), ("24x16", 2), ("32x40", 3)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of each kind, made when asked for."""
    made: dict[str, str] = {}

    def folder(kind: str = "qwen2_vl") -> str:
        if kind not in made:
            made[kind] = vlm_on_disk(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


def engine(path: str, give=shown, rank: int = 2, **spec) -> TorchEngine:
    spec = {"device": "cpu", "precision": "fp32", "threads": 1} | spec
    return TorchEngine(from_path(path, shows=give), EngineSpec(**spec), AdapterSpec(rank=rank, alpha=4.0))


def trees(e: TorchEngine) -> list[Segment]:
    """No picture, one, two, and one that is read behind a turn; rows of different sizes."""
    said = lambda text, up: Segment(  # noqa: E731
        parent=up,
        token_ids=e.encode(text),
        role="act",
        stream="sft",
        weight=(1.0,) * len(e.encode(text)),
    )
    read = lambda text, up=-1: Segment(parent=up, token_ids=e.encode(text))  # noqa: E731
    return [
        read("w1 w2 w3"),
        said("w4 w5", 0),
        read(f"w1 {WIDE} w3"),
        said("w6 w7 w8", 2),
        said("w9", 2),
        read(f"{HIGH} w1 {LARGE} w2"),
        said("w3 w4", 5),
        read(f"w5 {WIDE} w6", 6),
        said("w7 w8", 7),
    ]


def plain(e: TorchEngine, segments: list[Segment], i: int, model=None) -> torch.Tensor:
    """log p of the tokens of a segment."""
    ids, n = path_to(segments, i), len(segments[i].token_ids)
    logp = plain_logits(model or e.weights.base, e.pictures, ids).log_softmax(-1)[-n - 1 : -1]
    return logp.gather(-1, torch.tensor(ids[-n:])[:, None])[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_are_those_of_each_path_by_itself(folders, kind, monkeypatch):
    e = engine(folders(kind))
    segments = trees(e)
    found = e.logprobs(Batch(policy="base", segments=tuple(segments)))
    for i, s in enumerate(segments):
        if s.stream:
            assert found[i] == pytest.approx(plain(e, segments, i).tolist(), abs=CLOSE)
    # positions that count tokens would be found out
    monkeypatch.setattr(packing, "with_grid", lambda *given: None)
    off = e.logprobs(Batch(policy="base", segments=tuple(segments)))[8]
    assert max(abs(a - b) for a, b in zip(off, found[8], strict=True)) > 10 * CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sampled_has_the_log_probs_that_train(folders, kind):
    """Adapters too, and what is said behind what was kept of an earlier call."""
    e = engine(folders(kind))
    e.fork("base", "one")
    stir(e, "one")
    texts = f"w1 {WIDE} w2", f"w1 {WIDE} w3 {HIGH} w4", "w5"
    for policy in ("base", "one"):
        ask = lambda ids, n: Request(policy=policy, context=ids, n=n, max_tokens=3, stops=())  # noqa: E731
        asked = [ask(e.encode(text), 2) for text in texts]
        first = e.sample(asked)
        behind = e.encode(f"w7 {HIGH} w8")
        later = [ask(r.context + outs[0].token_ids + behind, 1) for r, outs in zip(asked, first, strict=True)]
        segments, said = [], []
        for r, outs in zip(asked + later, first + e.sample(later), strict=True):
            segments.append(Segment(parent=-1, token_ids=r.context))
            root = len(segments) - 1
            for c in outs:
                one = (1.0,) * len(c.token_ids)
                segments.append(
                    Segment(parent=root, token_ids=c.token_ids, role="act", stream="pg", weight=one)
                )
            said += [(), *(c.logprobs for c in outs)]
        for found, wanted in zip(
            e.logprobs(Batch(policy=policy, segments=tuple(segments))), said, strict=True
        ):
            assert found == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_places_are_the_models_own(folders, kind):
    e = engine(folders(kind))
    segments = trees(e)
    packed = pack(segments, grid=e.pictures)
    ids = np.array(path_to(segments, 8))
    here = torch.tensor(np.where(ids >= e.pictures.first, e.weights.base.config.image_token_id, ids))[None]
    grids = torch.tensor([[1, 6, 4], [1, 8, 10], [1, 4, 6]])
    types = torch.tensor((ids >= e.pictures.first)[None].astype(np.int32))
    wanted, _ = e.weights.base.model.get_rope_index(here, types, image_grid_thw=grids)
    at = [packed.starts[i] + k for i in (5, 6, 7, 8) for k in range(len(segments[i].token_ids))]
    assert torch.equal(packed.positions_N[:, at], wanted[:, 0])
    # a picture that is cut goes on where it was
    cut = list(ids).index(e.pictures.ids(LARGE)[7])
    halves = [Segment(parent=-1, token_ids=tuple(ids[:cut])), Segment(parent=0, token_ids=tuple(ids[cut:]))]
    assert torch.equal(pack(halves, grid=e.pictures).positions_N, wanted[:, 0])
    assert pack(segments[:2], grid=e.pictures).positions_N.dim() == 1


@pytest.mark.parametrize(("policy", "loss"), [("base", "sft"), ("one", "grpo")])
def test_gradients_are_those_of_each_path_by_itself(folders, policy, loss):
    """Of whole weights by imitation and of an adapter by RL, in the tower as in the decoder."""
    e = engine(folders())
    if policy == "one":
        e.fork("base", "one")
        stir(e, "one")
    e.prepare(policy, OptimSpec())
    segments = trees(e)
    count = sum(len(s.token_ids) for s in segments if s.stream)
    worth = [1.0] * len(segments)
    if loss == "grpo":
        worth = [(-1.0) ** i * (i + 1) for i in range(len(segments))]
        said = e.logprobs(Batch(policy=policy, segments=tuple(segments)))
        segments = [
            replace(s, stream="pg", advantage=(w,) * len(old), old_logprobs=old) if s.stream else s
            for s, w, old in zip(segments, worth, said, strict=True)
        ]
    e.forward_backward(Batch(policy=policy, segments=tuple(segments)), Objective((term(loss, float(count)),)))
    with e.weights.training(policy) as model:
        own = e.weights.parameters(policy)
        parts = [
            worth[i] * _with_grad(e, model, segments, i).sum() for i, s in enumerate(segments) if s.stream
        ]
        wanted = torch.autograd.grad(-sum(parts) / count, list(own.values()), allow_unused=True)
    seen = set()
    for (name, p), grad in zip(own.items(), wanted, strict=True):
        if grad is not None:
            assert torch.allclose(p.grad, grad, atol=1e-5), name
            seen |= {"tower"} if "visual" in name and grad.abs().max() > 1e-5 else {"decoder"}
    assert seen == {"tower", "decoder"}


def _with_grad(e, model, segments, i):
    ids, n = path_to(segments, i), len(segments[i].token_ids)
    logits = plain_logits.__wrapped__(model, e.pictures, ids)
    return logits.log_softmax(-1)[-n - 1 : -1].gather(-1, torch.tensor(ids[-n:])[:, None])[:, 0]


def striped(name: str) -> Shown:
    """Black or white, `kept`: the left column of patches."""
    colour = 0 if name.startswith("black") else 255
    left = lambda p: np.arange(p.shape[1])[None].repeat(len(p), 0) == 0  # noqa: E731
    return Shown(np.full((2 * SIDE, 3 * SIDE, 3), colour, np.uint8), left if "left" in name else None)


def colours(e: TorchEngine) -> Batch:
    segments = []
    for colour, word in (("black", "w1"), ("white/left", "w2")):
        segments.append(Segment(parent=-1, token_ids=e.encode(f"w3 {MARK}{colour} w4")))
        root = len(segments) - 1
        segments.append(
            Segment(parent=root, token_ids=e.encode(word), role="act", stream="sft", weight=(1.0,))
        )
    return Batch(policy="base", segments=tuple(segments))


def test_what_only_the_picture_says_is_learned_saved_and_opened(folders, tmp_path):
    from transformers import AutoModelForImageTextToText

    e = engine(folders(), striped)
    e.prepare("base", OptimSpec(lr=1e-2, warmup=1))
    batch = colours(e)
    for _ in range(15):
        e.forward_backward(batch, Objective((Term(loss="sft", stream="sft", denominator=2.0),)))
        e.optim_step("base")
    e.publish("base")
    asked = [
        Request(policy="base", context=s.token_ids, n=1, max_tokens=1, temperature=0.0, stops=())
        for s in batch.segments[::2]
    ]
    assert [e.decode(one.token_ids) for [one] in e.sample(asked)] == ["w1", "w2"]
    e.save(tmp_path / "saved")
    opened = engine(str(tmp_path / "saved" / "base"), striped)
    for a, b in zip(e.logprobs(batch), opened.logprobs(colours(opened)), strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved" / "base", dtype="auto")
    assert torch.equal(
        model.model.visual.blocks[0].attn.qkv.weight, e.weights.base.model.visual.blocks[0].attn.qkv.weight
    )


def test_patches_that_are_left_out_leave_the_others_in_their_places(folders):
    e = engine(folders(), striped)
    whole, left = (e.encode(f"w3 {MARK}{name} w4") for name in ("black", "black/left"))
    assert (len(whole), len(left)) == (4 + 6, 4 + 2)
    places = pack([Segment(parent=-1, token_ids=left)], grid=e.pictures).positions_N
    assert places[:, 2:4].tolist() == [[2, 2], [2, 3], [2, 2]] and places[:, 4:].tolist() == [[5, 6]] * 3
    embed = e.weights.base.get_input_embeddings()
    assert torch.equal(embed(torch.tensor(left))[2:4], embed(torch.tensor(whole))[[2, 5]])


def test_a_whole_copy_and_a_frozen_one_read_the_same_pictures(folders):
    e = engine(folders())
    segments = tuple(trees(e))
    for name, kind in (("two", "model"), ("ref", "frozen")):
        e.fork("base", name, kind)
        for a, b in zip(
            *(e.logprobs(Batch(policy=p, segments=segments)) for p in ("base", name)), strict=True
        ):
            assert a == pytest.approx(b, abs=1e-6)
    stir(e, "two")
    assert (
        "two" in e.weights.copies
        and e.weights.copies["two"].get_input_embeddings()._model[0] is e.weights.copies["two"]
    )


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_conversation_and_an_observation_show_pictures(tmp_path):
    tokenizer = bpe_of(["Click the red box."], 290, ("<pad>", "<eos>", "<|im_start|>", "<|im_end|>", *MARKS))
    tokenizer.chat_template = TEMPLATE
    e = engine(vlm_on_disk(tmp_path / "m", tokenizer=tokenizer))
    for text in (f"{WIDE} Click  it.", f"no <|im_end|> here {WIDE}\nClick  it."):
        ids = e.chat([{"role": "user", "content": text}])
        patches = e.pictures.ids(WIDE)
        at = ids.index(patches[0])
        before, behind = e.encode(MARKS[0]), e.encode(MARKS[1])
        assert ids[at - 1 : at + 7] == (*before, *patches, *behind)
        assert e.decode(ids, special=False).rstrip() == f"user\n{text.replace(WIDE, '')}\nassistant"
        assert ids.count(e.encode("<|im_end|>")[0]) == 1
    seen = e.observation(f"now {HIGH}", e.encode("Click"))
    assert set(e.pictures.ids(HIGH)) < set(seen)


def test_without_pictures_it_is_a_model_of_text(folders):
    e = TorchEngine(from_path(folders()), EngineSpec(device="cpu", precision="fp32"), AdapterSpec())
    segments = trees(engine(folders()))[:2]
    [_, found] = e.logprobs(Batch(policy="base", segments=tuple(segments)))
    model = engine(folders())
    assert e.pictures is None and found == pytest.approx(plain(model, segments, 1).tolist(), abs=CLOSE)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "a video is not supported"),
        (np.zeros((8, 8, 3), np.float32), "bytes .height, width, 3. are needed"),
        (np.zeros((0, 8, 3), np.uint8), "bytes .height, width, 3. are needed"),
        (np.zeros((1, 900, 3), np.uint8), "aspect ratio"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(folders, pixels, reason):
    e = engine(folders(), lambda name: Shown(pixels))
    with pytest.raises(ValueError, match=f"{MARK}x: .*{reason}"):
        e.encode(f"w1 {MARK}x")


def _without_processor(folder):
    (folder / "preprocessor_config.json").unlink()


def _with_other_cells(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"patch_size": 8}))


def _torn(folder):
    (folder / "preprocessor_config.json").write_text("{")


def _endless(folder):
    path = folder / "preprocessor_config.json"
    size = {"shortest_edge": 10**12, "longest_edge": 10**13}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": size}))


def _says(**fields):
    """The processor says something else."""

    def spoil(folder):
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def _of_config(where=None, **fields):
    """The configuration does."""

    def spoil(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        (config[where] if where else config).update(fields)
        path.write_text(json.dumps(config))

    return spoil


def _of_another_kind(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "idefics3"}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_without_processor, "has no preprocessor_config.json, which says how pictures are cut"),
        (_with_other_cells, "patch_size = 8, config.json 4; they do not belong together"),
        (_torn, "preprocessor_config.json cannot be read"),
        (_endless, "makes pictures of 1,000,000,000,000 to"),
        (_says(size={"shortest_edge": "64", "longest_edge": 4096}), "that are whole numbers"),
        (_says(patch_size=4.0), "patch_size = 4.0, config.json 4"),
        (_says(do_resize=False), "says do_resize = false"),
        (_says(image_mean=[0.5]), "no picture can be read by its preprocessor_config.json: .*3 elements"),
        (_says(image_std=[0, 0, 0]), "makes numbers of it that are not below 1,000,000"),
        (_says(image_std=[1e-30] * 3), "makes numbers of it that are not below 1,000,000"),
        (_says(rescale_factor="x"), "no picture can be read by its preprocessor_config.json"),
        (_says(resample=99), "no picture can be read by its preprocessor_config.json"),
        (_of_config(image_token_id=10**6), "gives the id 1000000 to a token of pictures"),
        (_of_config("vision_config", depth=10**9), "vision_config.depth = 1000000000 is not a whole number"),
        (_of_config("vision_config", depth=3), "it lacks weights of .*: model.visual.blocks.2"),
        (_of_config("vision_config", embed_dim=64), r"model.visual.* has the shape \[.*\] in the files and"),
        (_of_config("vision_config", patch_size=0), "vision_config.patch_size = 0 is not a whole number"),
        (
            _of_another_kind,
            "idefics3. is none of the models whose pictures are read here .qwen2_vl, qwen2_5_vl",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, spoil, reason):
    path = vlm_on_disk(tmp_path / "m")
    spoil(tmp_path / "m")
    with pytest.raises(UserError, match=reason) as e:
        from_path(path, shows=shown)
    assert "\n" not in str(e.value)


def test_a_model_of_text_is_shown_no_pictures(tmp_path):
    with pytest.raises(UserError, match="llama. is none of the models whose pictures are read here"):
        from_path(on_disk(tmp_path / "m", model_of()), shows=shown)


def test_pictures_that_would_be_read_wrongly_are_refused(folders, monkeypatch):
    from forethought.engines.torch.models import vlm

    monkeypatch.setattr(
        vlm.Views, "patches", lambda self, id: vlm.Patches(self.owner(id)[1], np.zeros((2, 6), int), 3)
    )
    with pytest.raises(UserError, match="reads pictures otherwise in packed forests than by itself"):
        from_path(folders(), shows=shown)
