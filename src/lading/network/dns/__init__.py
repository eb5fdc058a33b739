"""The embedded resolver: container names answered inside each container's network namespace, the rest forwarded.

`message` is the wire format, `zone` who is called what, `server` the loop, `process` its process, `door` the daemon's
handle on it. The process outlives the daemon, as monitors do.
"""
