"""An environment is the task: whoever wrote it, a taskset of its episodes."""
