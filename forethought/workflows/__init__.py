"""Who speaks when: tasks become trees of rollouts."""
