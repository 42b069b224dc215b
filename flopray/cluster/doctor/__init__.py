"""What a machine, or every node of a cluster, can measure, and what would give it the rest."""
