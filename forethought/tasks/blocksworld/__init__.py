"""`blocksworld`: PDDL problems, in words."""
