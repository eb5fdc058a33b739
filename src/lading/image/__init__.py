"""Floor 1: images as values: digest, reference, descriptor, manifest, config, layer. Nothing here changes a
stored thing."""
