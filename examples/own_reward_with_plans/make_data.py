"""Writes data.jsonl: sums of three numbers with the plan that solves them, and the words a plan may use."""

import json
import random
from pathlib import Path

rng = random.Random(0)
rows = []
for a, b, c in rng.sample([(a, b, c) for a in range(6) for b in range(6) for c in range(6)], 150):
    plan = f"add {a} and {b}, then add {c}"
    rows.append({"question": f"{a} + {b} + {c} =", "answer": a + b + c, "plan": plan, "numbers": [a, b, c]})
text = "".join(json.dumps(row) + "\n" for row in rows)
Path(__file__).with_name("data.jsonl").write_text(text, encoding="utf-8")
