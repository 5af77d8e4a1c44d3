"""Starts and stops real processes: a Valkey, nodes that sell from it, and both together.

`up.cluster` is the way in. Whatever happens, no process outlives the block that started it.
"""
