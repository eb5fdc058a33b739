"""The registry client: pull and push with any registry of the OCI distribution spec or Docker's schema 2.

Loaded at the first pull, never at the daemon's start. Rooms it needs (blobs, snapshots) are handed to it: `ports.py`.
"""
