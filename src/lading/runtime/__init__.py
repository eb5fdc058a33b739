"""Floor 2: the container itself. plan (pure) -> zygote -> monitor -> init. Imports nothing here: the zygote pays for it."""
