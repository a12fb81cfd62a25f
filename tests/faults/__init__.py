"""The simulator: one process, a seed, and everything that may go wrong; and the oracle that judges the outcome."""
