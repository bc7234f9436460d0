"""Whole federations in virtual time, where everything that can go wrong does, by seed."""
