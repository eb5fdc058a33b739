"""Floor 3: from a Dockerfile to an image. Parses, lowers to content-addressed steps, solves with the layer
cache.

Runs nothing itself: RUN steps go to the Executor of `ports`, bytes to the store.
"""
