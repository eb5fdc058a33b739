"""Floor 2: accelerators through the Container Device Interface 1.1: spec files, their edits, and making specs."""
