"""The lab: the whole front door on one machine, each host a network namespace, real programs in each.

`netns` makes hosts and networks; `lab` puts the front door on them and fails it on purpose.
"""
