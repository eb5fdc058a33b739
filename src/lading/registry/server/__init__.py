"""A registry: the whole OCI distribution specification 1.1 over a blob store and a database that are handed in.

Knows no container and no engine. `server.Server` is the door, `content.Content` what is kept.
"""
