"""WebRL (arXiv 2411.02337): phases on tasks that evolve, a critic, a judge of outcomes, replay."""
