"""`python -m ticketrush` is `ticketrush`."""

from __future__ import annotations

from ticketrush.cli import main

if __name__ == "__main__":
    main()
