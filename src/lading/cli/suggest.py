"""Did you mean ...? The nearest of some words by edit distance. Owns no words."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def distance(a: str, b: str) -> int:
    """Optimal string alignment: insertions, deletions, replacements and swaps of neighbours."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def closest(word: str, words: Iterable[str]) -> str:
    """The word nearest to `word`, or "" when none is near enough to be meant."""
    best, least = "", 1 + max(1, len(word) // 3)
    for candidate in words:
        apart = distance(word[:64], candidate)
        if len(word) >= 3 and candidate.startswith(word):
            apart = min(apart, 1)
        if apart < least:
            best, least = candidate, apart
    return best
