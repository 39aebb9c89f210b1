"""Measurements that do not train. Each is a function from what it reads to metrics; `monitor` runs them and
counts what they cost."""
