"""Floor 4.4: the engine of an ordinary user. Owns the user namespace it runs in, and what connects that to the host.

`enter` puts this process into the namespace, `keeper` is the small process that holds it, `network` carries the network
room into the namespace's own network, `groups` finds the control groups that are the user's. Root never comes here.
"""
