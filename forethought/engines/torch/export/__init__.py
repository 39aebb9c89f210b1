"""From a checkpoint's files to folders that other programs open."""
