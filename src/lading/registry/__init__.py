"""Registries over the OCI distribution spec: the client that pulls and pushes, and a server of our own."""
