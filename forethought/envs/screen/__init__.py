"""What a screen shows to somebody who has no document: boxes with labels, patches, and rows with ids."""
