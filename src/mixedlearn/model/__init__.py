"""The fitted model: fits, refits, predictions, simulations."""
