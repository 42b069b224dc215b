"""FLOPs of any function, shown: tables of three counts and of modules, and how they grow with the shape."""
