"""Random identifiers and container names. Owns their alphabet and length; never looks at what exists."""

from __future__ import annotations

import os

_LEFT = (
    "able bold brave bright calm clever cool eager fair fond gentle glad happy keen kind lucid merry neat noble "
    "patient proud quick quiet ready sharp steady sunny swift tidy vivid warm wise zen"
).split()
_RIGHT = (
    "ada bayes bengio boole church curie darwin dijkstra easley elion euler fisher franklin galois gauss goodall "
    "hamilton hinton hopper kalman knuth kolmogorov lamport lecun liskov lovelace markov minsky noether pearl "
    "rosenblatt rumelhart shannon turing valiant vapnik wiener"
).split()


def new_id() -> str:
    """64 lower-case hexadecimal digits, as every Docker client expects of a container id."""
    return os.urandom(32).hex()


def short(identifier: str) -> str:
    """The 12-digit form that tables print; a `sha256:` prefix is dropped."""
    return identifier.removeprefix("sha256:")[:12]


def random_name() -> str:
    """A name such as `keen_lovelace`; the caller retries when it is taken."""
    a, b = os.urandom(2)
    return f"{_LEFT[a % len(_LEFT)]}_{_RIGHT[b % len(_RIGHT)]}"
