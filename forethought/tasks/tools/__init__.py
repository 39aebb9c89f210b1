"""`tools`: how many has who, worked out with look-ups and a calculator."""
