"""The API client: a unix socket, TCP, or the same process over a socketpair. Knows HTTP and Docker's API, prints nothing.

Start-up time is a feature here: nothing in this room imports json, re, socket, typing or dataclasses when a request is
made (a house test holds it); `python -X importtime` shows what each of them would cost `lading run`.
"""
