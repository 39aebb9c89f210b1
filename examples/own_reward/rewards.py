def close(completions, answer, tolerance, **kwargs):
    said = [int(text) if text.isdecimal() and len(text) < 9 else None for text in completions]
    rows = zip(said, answer, tolerance, strict=True)
    return [0.0 if n is None else max(0.1, 1 - abs(n - a) / (2 * t)) for n, a, t in rows]
