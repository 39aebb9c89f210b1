"""A tree becomes a batch: rewards, credit, curriculum, segments, schedules."""
