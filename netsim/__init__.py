"""Worlds that scenarios run in, and what judges them: whole nodes on one virtual clock and one seed, in memory."""
