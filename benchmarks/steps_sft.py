"""The row `llm_sft` of `steps.py`: one update of imitation with LoRA against one of TRL's SFTTrainer, on the
same demonstrations.

A demonstration is a system text that all share, a question and a solution, of random words and of the lengths
of GSM8K's with rules-distilled plans (290 tokens on average); the loss is on the solution. TRL computes
without gradient checkpointing, as it is fastest, and pads a batch to its longest demonstration.
"""

from __future__ import annotations

import random
import tempfile

SEED = 1


def demonstrations(row: dict, words: list[str], n: int) -> list[tuple[str, str, str]]:
    """(system, question, solution): a question is 50 to 150 % of its mean long, and so is a solution."""
    rng = random.Random(0)

    def text(mean: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(mean // 2, mean + mean // 2)))

    system = " ".join(rng.choices(words, k=row["system"]))
    return [(system, text(row["prompt"] - row["system"]), text(row["new"])) for _ in range(n)]


def ours(args, row: dict, line, words: list[str]) -> None:
    from steps import ALPHA, BETAS, CLIP, DECAY, LR

    from forethought.core.metrics import reduce
    from forethought.core.types import Task, Turn
    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.models.loading import from_path
    from forethought.learn.curriculum import LevelSampler
    from forethought.recipe.kinds.imitate import Imitate
    from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec, UntilSpec
    from forethought.stages.step import Stage
    from forethought.tasks.base import Taskset
    from forethought.workflows.rollout import Rollouts

    class Shown(Taskset):
        """Demonstrations of a plan alone, in their order."""

        name, levels = "shown", (1,)
        stops, budgets = {"plan": "<eos>", "act": ""}, {"plan": 2 * row["new"], "act": 1}
        has_plans = all_demonstrable = True

        def __init__(self):
            self.shown = demonstrations(row, words[3:], row["prompts"] * args.steps)
            self.next = iter(enumerate(self.shown))

        def vocabulary(self):
            return words[3:]

        def family(self, rng, levels, split):
            return [
                Task(id=str(i), taskset=self.name, level=1, context=system, prompt=question)
                for i, (system, question, _) in (next(self.next) for _ in levels)
            ]

        def demonstrate(self, task):
            return [Turn(role="plan", text=f"{self.shown[int(task.id)][2]} <eos>")]

    engine = TorchEngine(
        from_path(args.model),
        EngineSpec(device="cpu", precision=args.precision, threads=args.threads, kernel_threads=args.threads),
        AdapterSpec(rank=row["rank"], alpha=ALPHA),
    )
    engine.fork("base", "all", "adapter")
    optim = OptimSpec(lr=LR, betas=BETAS, weight_decay=DECAY, clip_norm=CLIP, warmup=0)
    spec = Imitate(roles=("plan",), until=UntilSpec(steps=args.steps), batch=row["prompts"], optim=optim)
    rollouts = Rollouts(engine, Shown())
    stage = Stage(engine, rollouts, spec, {"plan": "all"}, LevelSampler([1]), seed=SEED)
    engine.prepare("all", optim)
    for k in range(args.steps):
        line.wait()
        m = reduce(stage.step(k).metrics)
        line.done(trained=m["tokens/trained"], forward=m["tokens/forward"], loss=m["loss/sft"])


def settings(args, batch: int, rate: float) -> dict:
    """Of any of TRL's trainers: what it takes to do bare updates, as our side does them."""
    from steps import BETAS, CLIP, DECAY

    return {
        "output_dir": tempfile.mkdtemp(dir=args.model),
        "use_cpu": True,
        "bf16": args.precision == "bf16",
        "fp16": False,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "max_steps": args.steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": DECAY,
        "max_grad_norm": CLIP,
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": SEED,
    }


def trl(args, row: dict, line, words: list[str]) -> None:
    """TRL's side."""
    import torch
    from datasets import Dataset
    from steps import LR
    from steps_trl import lora
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(args.threads)
    config = SFTConfig(
        **settings(args, row["prompts"], LR),
    )
    seen = {}

    class Watched(SFTTrainer):
        def _get_train_sampler(self, *a, **k):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, model, inputs, *a, **k):
            out = super().compute_loss(model, inputs, *a, **k)
            loss = out[0] if isinstance(out, tuple) else out
            seen.update(
                loss=loss.detach(),
                trained=(inputs["labels"] != -100).sum(),
                forward=inputs["input_ids"].numel(),
            )
            return out

    class TakeTurns(TrainerCallback):
        def on_train_begin(self, *a, **k):
            line.wait()

        def on_step_end(self, *a, **k):
            line.done(trained=seen["trained"].item(), forward=seen["forward"], loss=seen["loss"].item())
            line.wait()

    shown = demonstrations(row, words[3:], row["prompts"] * args.steps)
    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_dict(
            {
                "prompt": [f"{system} {question}" for system, question, _ in shown],
                "completion": [f" {solution}" for _, _, solution in shown],
            }
        ),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        callbacks=[TakeTurns()],
        peft_config=lora(row["rank"]),
    )
    trainer.train()
