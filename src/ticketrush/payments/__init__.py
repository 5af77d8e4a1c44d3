"""Taking money: what a payment gateway promises, and one for trying things out."""
