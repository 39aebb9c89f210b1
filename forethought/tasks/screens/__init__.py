"""The taskset `screens`: pictures of pages, and places on them."""
