"""What the engine runs on: device, memory, threads, and which code is fastest there."""
