"""Strategic grams (HICRA, arXiv 2509.03646): phrases by which text is recognised as planning, mined from
solutions that were right.

    sources -> mine (n-grams, embed, cluster) -> listing (a file that people edit) -> match -> planning (which
    tokens of a rollout)
"""
