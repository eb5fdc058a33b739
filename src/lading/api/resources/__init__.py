"""The handlers, one file for each resource of the Engine API. Each reads its request, calls one verb, and answers."""
