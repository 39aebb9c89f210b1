"""What the rows are that a recipe names by a word: key -> word -> meaning. Tests hold the words to the tables
in which the rows are looked up."""

from __future__ import annotations

from collections.abc import Mapping

TASKSETS = {
    "desk": "Nested widgets on a screen: the plan is the way to one, the acts are clicks. Drawn without end.",
    "blocksworld": "Blocksworld: plans in subgoals, acts in STRIPS primitives. Drawn without end.",
    "math": "Math problems from your files: a plan, thinking, the answer in a box.",
    "text": "Prompts from your file, with any columns.",
    "environment": "Episodes of an environment: Gymnasium, TRL, MCP, OpenEnv, verifiers or your own.",
    "web": "Pages in a browser: the plan says what to do in words, acts are done by ids.",
    "screens": "Pictures of pages: the plan says what to click in words, acts are places on the picture.",
    "tools": "How many has who: plans ask two registers and a calculator. Drawn without end.",
}
WORKFLOWS = {
    "plan_then_act": "A plan, then the acts that follow it.",
    "remembering": "Plan and act, each after a memory of earlier episodes (Agent S, arXiv 2410.08164).",
    "act_only": "The act alone: flat, as plain GRPO has it.",
    "react": "A thought before every act (ReAct, arXiv 2210.03629).",
    "plan_steps": "A plan, then one act for each of its steps, which the actor reads before it.",
    "blink_think_link": "A look names what matters, a thought plans, the link acts (arXiv 2509.15566).",
    "rewoo": "A plan of all uses of tools with `#E1` for results, then a solution (ReWOO, arXiv 2305.18323).",
    "abstraction": "A chain with `y1` for results, which tools fill in (CoA, arXiv 2401.17464).",
    "modulo": "A validator's first mistake goes back to the planner (LLM-Modulo, arXiv 2402.01817).",
}
GRADERS = {
    "exact": "The whole answer is the right one, white space around it aside.",
    "contains": "The right answer stands in it; case and runs of white space do not count.",
    "number": "Its last number (in a box or after `####`, where there is one) has the same value.",
    "regex": "The right answer is a pattern that is found in it.",
    "choice": "It chooses the same letter.",
    "math-verify": "Its last `\\boxed{}` says the same (the extra `math`).",
}
CREDITS = {
    "grpo": "GRPO (arXiv 2402.03300) over whole paths: reward minus the group's mean, over its deviation.",
    "dr_grpo": "Dr. GRPO (arXiv 2503.20783) over whole paths: reward minus the group's mean.",
    "rloo": "RLOO (arXiv 2402.14740) over whole paths: reward minus the mean of the others.",
    "role_baseline": "Each branch against its peers: plans with plans, executions of one plan together.",
    "turn_level": "Each turn with what came after it on its branch, against peers at the same turn.",
    "webrl": "A learned value is the baseline, of kind `webrl`: gain in value, and outcome less value.",
    "webrl_released": "As WebRL's code has it, with the outcome on every turn.",
    "rae": "A running baseline for each role (SPIRAL, arXiv 2506.24119); one trajectory a task is enough.",
    "reinforce_pp": "REINFORCE++ (arXiv 2501.03262): advantages are normalised over the whole batch.",
    "reinforce_pp_baseline": "REINFORCE++ with the group's mean as baseline.",
}
LOSSES = {
    "grpo": "The clipped surrogate of PPO, as GRPO takes it. The default of rollouts.",
    "dapo": "The same with a higher upper bound (DAPO, arXiv 2503.14476).",
    "gspo": "The same with the ratio of the whole response (GSPO, arXiv 2507.18071).",
    "cispo": "The clipped ratio is a weight without a gradient (MiniMax-M1, arXiv 2506.13585).",
    "webrl": "KL regression: the log-ratio to a reference is what the advantage says (arXiv 2411.02337).",
    "webrl_released": "As WebRL's code has it: imitation of what the critic finds no worse, the control.",
    "sft": "Negative log-likelihood. The default of demonstrations.",
}
TRACKERS = {
    "auto": "As `tensorboard`, where that is installed.",
    "tensorboard": "Event files in RUN/tensorboard.",
    "wandb": "Weights & Biases; without an account offline in RUN/wandb.",
    "trackio": "A local dashboard: `trackio show --project RECIPE`.",
    "mlflow": "The server in MLFLOW_TRACKING_URI, else files in `mlruns` beside the run.",
}
PARTS = {
    "outcome": "What the episode earned: 1 or 0, or its score. Of a plan: the mean of what hangs below it.",
    "valid": "The exact executor says that the plan reaches the goal.",
    "format": "The interface accepted the turn.",
    "follows": "The acts are a correct execution of the plan above them, be it right or wrong.",
    "analytic": "Softmax of the outcomes of a plan and its peers (PTA-GRPO, arXiv 2510.01833).",
    "structure": "1 where every turn from the prompt to the end of the trajectory kept to its format.",
    "length": "How near the response is to the shortest success of its group (PTA-GRPO).",
    "reward": "The environment's own reward of this step.",
    "legal": "1 where the turn was an action of the environment.",
    "answered": "1 where the grader found something to read in the answer.",
}
OPTIONS = {
    "clip_low": "The ratio of new to old probability is kept from 1 - clip_low on.",
    "clip_high": "The ratio of new to old probability is kept up to 1 + clip_high.",
    "beta": "Advantage of one nat of log-ratio: large keeps the policy near its reference.",
    "beta_sure": "The same where the reference is sure of the turn.",
    "sure": "Mean probability of a token from which on the reference is sure.",
    "replan_after": "A plan is written anew after so many failed steps, and where it is asked for. 0: never.",
    "memory": "A file of memories: JSON lines with kind, key and text.",
    "narrative": "Memories of whole tasks are read before a plan.",
    "episodic": "Memories of how a plan was done are read before the acts.",
    "rounds": "Plans that are written at most, each after what was wrong with the one before it.",
}
"""What the options of losses and workflows mean; their defaults stand in the rows."""
NAMED: Mapping[str, Mapping[str, str]] = {
    "task.name": TASKSETS,
    "workflow.name": WORKFLOWS,
    "task.grader": GRADERS,
    "stage.N.credit.name": CREDITS,
    "stage.N.loss.name": LOSSES,
    "stage.N.reward": PARTS,
    "trackers": TRACKERS,
}
"""The key of a recipe, as `explain` writes it -> its words."""
