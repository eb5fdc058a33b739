"""Floor 4: the Docker Engine API over HTTP/1.1. Turns requests into calls of the engine, and its values into JSON.

Holds no state of its own: everything a client sees comes from the engine that it was given.
"""
