def names_the_numbers(plans, numbers, **kwargs):
    return [sum(str(n) in plan for n in ns) / len(ns) for plan, ns in zip(plans, numbers, strict=True)]


def close(completions, answer, **kwargs):
    said = [int(text) if text.isdecimal() and len(text) < 9 else None for text in completions]
    return [0.0 if n is None else 1 / (1 + abs(n - a)) for n, a in zip(said, answer, strict=True)]
