"""Writes data.jsonl: sums of two numbers from 0 to 9, and a column that only the reward function reads."""

import json
import random
from pathlib import Path

rng = random.Random(0)
pairs = [(a, b) for a in range(10) for b in range(10)]
rng.shuffle(pairs)
rows = [{"question": f"{a} + {b} =", "answer": a + b, "tolerance": 1 + (a + b) // 5} for a, b in pairs]
text = "".join(json.dumps(row) + "\n" for row in rows)
Path(__file__).with_name("data.jsonl").write_text(text, encoding="utf-8")
