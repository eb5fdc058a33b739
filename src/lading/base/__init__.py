"""Floor 0: errors, ids, clock, paths, atomic files, logging. Imports nothing of lading."""
