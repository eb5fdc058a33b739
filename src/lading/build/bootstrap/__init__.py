"""Base images without a registry, from the distribution's own signed packages. Owns what can be made and how.

`bootstrap` is the room's one verb; `names()` lists what it can make. It never talks to a registry, and never
installs anything on the host: where a tool is missing it says which package to install.
"""

from lading.build.bootstrap.make import bootstrap
from lading.build.bootstrap.recipes import names

__all__ = ["bootstrap", "names"]
