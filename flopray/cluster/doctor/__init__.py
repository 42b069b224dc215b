"""What a machine, or every node of a cluster, can measure, and what it lacks for the rest."""
