"""FLOPs of one iteration: closed forms and what the framework dispatched."""
