"""Ways in which people write models and scripts, each with what must come of it."""
