"""How an answer is read and compared: text -> dress off -> a typed value -> equal or not.

Nothing here evaluates code, and every step is bounded.

    dress         what changes the look alone (boxes, dollar signs, spaces of every kind) is taken off
    tables        units, currencies, number words, months: data
    numbers       plain, grouped, recurring, mixed numbers and number words -> Fraction
    units         `cm^2`, `miles per hour`, `red apples` -> dimensions and a factor
    algebra       exact sums and ratios of sums over the rationals, with roots, pi, e, i and unread functions
                  as atoms
    expressions   LaTeX or plain algebra -> a ratio of algebra
    values        one answer -> Value (kind, body, unit, name, choice)
    compare       whether two values say the same
"""
