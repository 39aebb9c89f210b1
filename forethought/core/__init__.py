"""The words that all rooms share: records, metrics, errors, and files as lines."""
