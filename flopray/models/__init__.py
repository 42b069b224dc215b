"""Plain modules to be measured, each beside the closed forms of its cost."""
