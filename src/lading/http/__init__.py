"""The server's side of HTTP/1.1 for every room that serves it: sans-IO framing by h11, bounds and patience."""
