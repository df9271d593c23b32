"""The history checker: what was written, what functions saw, and whether the second follows from the first."""
