"""The only authority on stock and reservation state. `protocol` is what every backend promises."""
