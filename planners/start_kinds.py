"""What a search can begin with, by name; light, so that command lines can offer them."""

from __future__ import annotations

# The network's proposal, the best candidate again and again, any order.
START_KINDS = ("gan", "greedy", "random")
