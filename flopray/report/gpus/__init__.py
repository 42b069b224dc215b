"""GPUs and precisions compared by what the phases of a model cost: tables and figures."""
