"""TRL's side of `steps.py`: here and in `steps_sft.py` TRL is imported."""

from __future__ import annotations

import steps_sft


def trl(args, row: dict, line) -> None:
    """Steps of GRPO, each after a word of `line`, until there are `args.steps`."""
    from steps import LR, prompts_of, share_odd, words_of

    if row.get("imitate"):
        return steps_sft.trl(args, row, line, words_of(row))
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(args.threads)
    batch = row["prompts"] * row["group"]
    config = GRPOConfig(
        **steps_sft.settings(args, batch, row.get("lr", LR)),
        num_generations=row["group"],
        max_completion_length=row["new"],
        temperature=1.0,
        beta=0.0,
        loss_type="grpo",
        shuffle_dataset=False,
    )

    seen = {}

    class Watched(GRPOTrainer):
        def compute_loss(self, model, inputs, **k):
            loss = super().compute_loss(model, inputs, **k)
            seen.update(loss=loss.detach(), trained=inputs["completion_mask"].sum())
            return loss

    class TakeTurns(TrainerCallback):
        def on_train_begin(self, *a, **k):
            line.wait()

        def on_step_end(self, *a, **k):
            m = trainer._metrics["train"]
            line.done(
                sampled=seen["sampled"],
                trained=seen["trained"].item(),
                loss=seen["loss"].item(),
                entropy=m["entropy"][-1],
            )
            line.wait()

    def reward(completion_ids, **_):
        seen["sampled"] = sum(map(len, completion_ids))
        return [share_odd(ids) for ids in completion_ids]

    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts_of(row, args.steps)}),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        callbacks=[TakeTurns()],
        peft_config=lora(row["rank"]) if "rank" in row else None,
    )
    trainer.train()


def lora(rank: int):
    """As ours: every matrix of the layers."""
    from peft import LoraConfig
    from steps import ALPHA

    return LoraConfig(r=rank, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
