"""Who may come in: the gate (is there anything to buy?) and tokens (who is the buyer?)."""
