"""Benchmarks made from scratch: Filipino inflection and spelling, letter games and additions, in the published schemas.

Every answer is right by construction: it is what the rules of `inflection` and `syllables` give for a root of our own table.
"""
