"""Planted bugs that change nothing, each with the reason why no test can see it."""

EQUIVALENT: dict[str, str] = {}
