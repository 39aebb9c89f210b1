"""From a recipe or a path to a model that packed forests compute exactly."""
