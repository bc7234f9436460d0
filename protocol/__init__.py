"""The rules of a federation: pure functions and one state machine, no I/O."""
