"""What is known of each role: evaluation, gates, probes."""
