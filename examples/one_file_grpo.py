"""Plan, then act, trained with GRPO, in one file to be read from top to bottom. Needs torch and transformers,
takes a minute.

    python examples/one_file_grpo.py [--imitate 150] [--steps 40] [--seed 0] [--check FILE]

The task. A desk shows nested widgets, each listed as NAME PARENT X Y. To close one, close it and then all its
ancestors, from the inside out, by clicking their cells:

    screen   d desk x2 y1 c s x3 y4 s e x5 y7 e desk x0 y6 ...
    prompt   CLOSE c <plan>
    plan     c s e </plan>                        symbolic: which widgets, in which order
    act      c x3 y4 s x5 y7 e x0 y6 </act>       exact: where to click

1. Imitation. Acting is shown at every depth, planning almost only at depths 1 and 2: what is left to learn is
planning. 2. GRPO (arXiv 2402.03300). A tree a task: PLANS plans, ACTS executions of each; reward 1 where the
plan is right and the act
   executes it. The prompt is computed once for all plans and a plan once for all its executions, in sampling
   and in training.
3. Evaluation, factored: plan (own plan, judged alone), act (own acting under the right plan), e2e (both).

The library does the same for any model, on packed forests; `tests/test_parity.py` holds the two to the same
numbers.

Axes: P task, M plan of a task, Z execution of a plan, R row (a P, P*M or P*M*Z), T token, V word.
"""

import argparse
import json
import math
import random
import time

import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

NAMES, GRID, WIDGETS, DEPTH = "abcdefghijklmnop", 8, 6, 3
SHOWN = {1: 1.0, 2: 1.0, 3: 0.01}  # depth -> share of demonstrations in which the plan carries loss
WORDS = [
    "<pad>",
    "desk",
    "CLOSE",
    "<plan>",
    "</plan>",
    "</act>",
    *NAMES,
    *(f"{axis}{i}" for axis in "xy" for i in range(GRID)),
]
ID = {word: i for i, word in enumerate(WORDS)}
END_PLAN, END_ACT = ID["</plan>"], ID["</act>"]
MOST_PLAN, MOST_ACT = DEPTH + 2, 3 * DEPTH + 1  # tokens
TASKS, PLANS, ACTS = 16, 4, 2  # of one step of GRPO: tasks, plans of each, executions of each plan
CLIP, EPS = 0.2, 1e-4


# The task ---------------------------------------------------------------------------------------------------


def make_screen(rng):
    """name -> (parent, x, y). The first DEPTH names are a chain, so that every depth exists; the others hang
    anywhere."""
    names, depth, screen = rng.sample(NAMES, WIDGETS), {"desk": 0}, {}
    for i, (name, cell) in enumerate(zip(names, rng.sample(range(GRID * GRID), WIDGETS), strict=True)):
        chained = names[i - 1] if i else "desk"
        parent = chained if i < DEPTH else rng.choice([n for n in depth if depth[n] < DEPTH])
        screen[name], depth[name] = (parent, f"x{cell % GRID}", f"y{cell // GRID}"), depth[parent] + 1
    return {name: screen[name] for name in rng.sample(names, WIDGETS)}


def right_plan(screen, goal):
    plan = [goal]
    while screen[plan[-1]][0] != "desk":
        plan.append(screen[plan[-1]][0])
    return [*plan, "</plan>"]


def make_task(rng, screen, depth):
    return screen, rng.choice([name for name in screen if len(right_plan(screen, name)) == depth + 1])


def prompt(screen, goal):
    return [*(w for name, where in screen.items() for w in (name, *where)), "CLOSE", goal, "<plan>"]


def right_act(screen, plan):
    return [w for name in plan[:-1] for w in (name, *screen[name][1:])] + ["</act>"]


def accepted(screen, plan):
    """The interface: names on the screen, then the end. What it refuses is never executed."""
    return len(plan) > 1 and plan[-1] == "</plan>" and all(w in screen for w in plan[:-1])


def ids_of(words):
    return [ID[w] for w in words]


def words_of(sampled):
    return [[WORDS[i] for i in row[mask].tolist()] for row, mask in zip(sampled[0], sampled[1], strict=True)]


def padded(sequences, value=0):
    """Right-padded [R, T] and its mask."""
    length = max(map(len, sequences))
    return (
        torch.tensor([[*s, *[value] * (length - len(s))] for s in sequences]),
        torch.tensor([[i < len(s) for i in range(length)] for s in sequences]),
    )


# The model --------------------------------------------------------------------------------------------------


def small_model(seed, layers=3, width=128, heads=4):
    """A standard Qwen2 that begins with the heads a look-up needs: in layer 0 three heads look 1, 2 and 3
    tokens back, in later layers the same three compare the token here with what was moved (the induction
    circuit, arXiv 2209.11895)."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(WORDS),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    )
    d = width // heads
    frequency = 10000.0 ** (-torch.arange(0, d, 2) / d)
    size = math.sqrt(20 * math.sqrt(d)) * (frequency > 0.02)
    orthogonal = lambda: torch.nn.init.orthogonal_(torch.empty(d, width))  # noqa: E731
    first, *later = [layer.self_attn for layer in model.model.layers]
    with torch.no_grad():
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.5)
        for head in range(heads):
            part, shift, read, write = slice(head * d, (head + 1) * d), head + 1, orthogonal(), orthogonal()
            for attention in later:
                attention.v_proj.weight[part], attention.o_proj.weight[:, part] = (
                    0.8 * orthogonal(),
                    0.8 * orthogonal().T,
                )
            if shift <= 3:
                first.q_proj.weight[part] *= 0.1
                first.k_proj.weight[part] *= 0.1
                first.k_proj.bias[part] = torch.cat([size, torch.zeros(d // 2)])
                first.q_proj.bias[part] = torch.cat(
                    [size * torch.cos(-shift * frequency), size * torch.sin(-shift * frequency)]
                )
                first.v_proj.weight[part], first.o_proj.weight[:, part] = read, write.T
                for attention in later:
                    attention.q_proj.weight[part], attention.k_proj.weight[part] = read, write
    return model.eval()


class Prefix:
    """What the next tokens of each row see: keys and values, which of them are real, and the logits of the
    next token."""

    def __init__(self, model, ids_RT):
        self.model, self.cache = model, DynamicCache()
        self.mask_RT, self.next_RV = (
            torch.zeros(len(ids_RT), 0, dtype=torch.bool),
            torch.zeros(len(ids_RT), len(WORDS)),
        )
        self.extend(ids_RT, torch.ones_like(ids_RT, dtype=torch.bool))

    def extend(self, ids_RT, mask_RT):
        """Append right-padded tokens. Returns for each the log-prob it had [R, T]."""
        positions_RT = self.mask_RT.sum(1, keepdim=True) + (mask_RT.cumsum(1) - 1).clamp(min=0)
        self.mask_RT = torch.cat([self.mask_RT, mask_RT], 1)
        logits_RTV = self.model(
            input_ids=ids_RT,
            position_ids=positions_RT,
            attention_mask=self.mask_RT.long(),
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        # what predicts token t stands at t, the next one's last
        logits_RTV = torch.cat([self.next_RV[:, None], logits_RTV], 1)
        self.next_RV = logits_RTV[torch.arange(len(ids_RT)), mask_RT.sum(1)]
        return logits_RTV[:, :-1].log_softmax(-1).gather(-1, ids_RT[..., None])[..., 0]

    def repeat(self, n):
        """Every row n times: branches that share all that is above them."""
        self.cache.batch_repeat_interleave(n)
        self.mask_RT, self.next_RV = (x.repeat_interleave(n, 0) for x in (self.mask_RT, self.next_RV))
        return self

    def sample(self, stop, most, greedy=False):
        """Continue every row up to and including `stop`. Returns (ids, mask, log-probs), each [R, T <=
        most]."""
        columns, live_R = [], torch.ones(len(self.mask_RT), dtype=torch.bool)
        while len(columns) < most and live_R.any():
            p_RV = self.next_RV.softmax(-1)
            # 0, the padding, when done
            token_R = (p_RV.argmax(-1) if greedy else torch.multinomial(p_RV, 1)[:, 0]) * live_R
            columns.append((token_R, live_R, self.extend(token_R[:, None], live_R[:, None])[:, 0]))
            live_R = live_R & (token_R != stop)
        return [torch.stack(column, 1) for column in zip(*columns, strict=True)]


def prefix_of(model, tasks):
    return Prefix(model, torch.tensor([ids_of(prompt(*task)) for task in tasks]))


# Imitation --------------------------------------------------------------------------------------------------


def imitation_loss(model, rng, deepest, screens=16, goals=6):
    """Cross entropy over plans and acts of demonstrations. Each screen is computed once for all its goals."""
    shown = [make_screen(rng) for _ in range(screens)]
    prefix = Prefix(model, torch.tensor([ids_of(prompt(screen, "a")[:-3]) for screen in shown])).repeat(goals)
    sequences, weights = [], []
    for screen in shown:
        for depth in rng.choices(range(1, deepest + 1), k=goals):
            task = make_task(rng, screen, depth)
            plan = right_plan(*task)
            act = right_act(screen, plan)
            sequences.append(ids_of(prompt(*task)[-3:] + plan + act))
            weights.append([0.0] * 3 + [float(rng.random() < SHOWN[depth])] * len(plan) + [1.0] * len(act))
    weight_RT = padded(weights)[0]
    return -(prefix.extend(*padded(sequences)) * weight_RT).sum() / weight_RT.sum()


# GRPO -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def rollout(model, tasks):
    """One tree a task: prompts [P, T], plans and acts as `Prefix.sample` returns them, rewards [P, M, Z] and
    plan verdicts. A refused plan is not executed: its executions have no tokens, and reward 0."""
    prompt_PT = torch.tensor([ids_of(prompt(*task)) for task in tasks])
    prefix = Prefix(model, prompt_PT).repeat(PLANS)
    plan = prefix.sample(END_PLAN, MOST_PLAN)
    plans = list(zip([task for task in tasks for _ in range(PLANS)], words_of(plan), strict=True))
    act = prefix.repeat(ACTS).sample(END_ACT, MOST_ACT)
    act[1] &= torch.tensor([accepted(screen, words) for (screen, _), words in plans]).repeat_interleave(ACTS)[
        :, None
    ]
    right = [words == right_plan(*task) for task, words in plans]
    reward = [
        right[r // ACTS] and words == right_act(plans[r // ACTS][0][0], plans[r // ACTS][1])
        for r, words in enumerate(words_of(act))
    ]
    return prompt_PT, plan, act, torch.tensor(reward).float().view(len(tasks), PLANS, ACTS), right


def advantages(reward_PMZ):
    """Each path from the prompt to the end of an act is a response and all responses of a task are one group:
    A = (R - mean) / (std + eps). A plan gets the mean of its paths. Returns [P * M] of plans and [P * M * Z]
    of acts."""
    group_PG = reward_PMZ.flatten(1)
    advantage_PG = (group_PG - group_PG.mean(1, keepdim=True)) / (
        group_PG.std(1, keepdim=True, correction=0) + EPS
    )
    return advantage_PG.view_as(reward_PMZ).mean(2).flatten(), advantage_PG.flatten()


def grpo_loss(model, prompt_PT, plan, act, reward_PMZ):
    """PPO's clipped surrogate (arXiv 1707.06347) on the tokens of plans and acts, divided by the number of
    them all."""
    prefix = Prefix(model, prompt_PT)
    gain, tokens = 0.0, 0
    for branches, (ids_RT, mask_RT, old_RT), advantage_R in zip(
        reward_PMZ.shape[1:], (plan, act), advantages(reward_PMZ), strict=True
    ):
        ratio_RT = (prefix.repeat(branches).extend(ids_RT, mask_RT) - old_RT).exp()
        gain_RT = torch.minimum(
            ratio_RT * advantage_R[:, None], ratio_RT.clamp(1 - CLIP, 1 + CLIP) * advantage_R[:, None]
        )
        gain, tokens = gain + (gain_RT * mask_RT).sum(), tokens + mask_RT.sum()
    return -gain / tokens


# Evaluation and the run -------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model, n=64):
    """Percent of plan, act and e2e at each depth, greedy, always on the same tasks."""
    rng, table = random.Random("evaluation"), {}
    for depth in SHOWN:
        tasks = [make_task(rng, make_screen(rng), depth) for _ in range(n)]
        own, given = prefix_of(model, tasks), prefix_of(model, tasks)
        given.extend(*padded([ids_of(right_plan(*task)) for task in tasks]))
        plan_ok = [
            words == right_plan(*task)
            for task, words in zip(tasks, words_of(own.sample(END_PLAN, MOST_PLAN, greedy=True)), strict=True)
        ]
        right = [right_act(task[0], right_plan(*task)) for task in tasks]
        act_ok, own_ok = (
            [
                said == want
                for said, want in zip(
                    words_of(prefix.sample(END_ACT, MOST_ACT, greedy=True)), right, strict=True
                )
            ]
            for prefix in (given, own)
        )
        e2e_ok = [p and a for p, a in zip(plan_ok, own_ok, strict=True)]
        table[depth] = {
            side: 100 * sum(ok) / n for side, ok in (("plan", plan_ok), ("act", act_ok), ("e2e", e2e_ok))
        }
    return table


def update(model, loss, optimizers):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--imitate", type=int, default=150, help="steps of imitation")
    parser.add_argument("--steps", type=int, default=40, help="steps of GRPO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", help="write losses, rewards and evaluations to this file, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, model, began = random.Random(args.seed), small_model(args.seed), time.perf_counter()
    record = {"imitation": [], "grpo": [], "reward": []}

    def tell(what, every, k):
        if (k + 1) % every == 0:
            print(f"{time.perf_counter() - began:4.0f} s   {what}", flush=True)

    def measure(name):
        record[name] = evaluate(model)
        for depth, row in record[name].items():
            tell(
                f"{name} at depth {depth}: " + "  ".join(f"{side} {v:3.0f} %" for side, v in row.items()),
                1,
                0,
            )

    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    outer = [p for name, p in model.named_parameters() if p.ndim < 2 or ".layers." not in name]
    optimizers = [
        torch.optim.Muon(inner, lr=0.01, weight_decay=0.01),
        torch.optim.AdamW(outer, lr=2e-3, betas=(0.9, 0.95)),
    ]
    rates = [
        torch.optim.lr_scheduler.LambdaLR(
            o, lambda k: min(1, (k + 1) / 10, (args.imitate - k) / (0.4 * args.imitate))
        )
        for o in optimizers
    ]
    for k in range(args.imitate):
        loss = imitation_loss(model, rng, deepest=2 if k < 0.4 * args.imitate else DEPTH)
        update(model, loss, optimizers)
        for rate in rates:
            rate.step()
        record["imitation"].append(loss.item())
        tell(f"imitation {k + 1}: loss {loss.item():.3f}", 20, k)
    measure("after imitation")

    optimizers = [torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95))]
    for k in range(args.steps):
        *tree, right = rollout(
            model, [make_task(rng, make_screen(rng), rng.randint(2, DEPTH)) for _ in range(TASKS)]
        )
        for _ in range(2):  # the second update is off-policy: there the ratio is not 1 and the clip at work
            loss = grpo_loss(model, *tree)
            update(model, loss, optimizers)
            record["grpo"].append(loss.item())
        record["reward"].append(tree[3].mean().item())
        tell(
            f"GRPO {k + 1}: reward {record['reward'][-1]:.2f}, plans right {sum(right) / len(right):.2f}",
            5,
            k,
        )
    measure("after GRPO")
    if args.check:
        with open(args.check, "w") as f:
            json.dump(record, f, indent=1)


if __name__ == "__main__":
    main()
