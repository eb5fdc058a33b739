"""Floor 3: the verbs. A complete library of containers, execs, images, volumes, networks and events; no HTTP, no flags."""
