"""Orders: the business record of each reservation, made from the ledger's events after the buyer was answered."""
