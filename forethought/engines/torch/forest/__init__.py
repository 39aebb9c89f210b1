"""A forest of segments as one row: packing, attention, the decoder written out, its kernels."""
