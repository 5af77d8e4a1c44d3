"""The crowd: simulated buyers over real HTTP, and the report of what they were told, audited.

`rush.run` is the way in. The buyers run in a process of their own (``python -m ticketrush.crowd``).
"""
