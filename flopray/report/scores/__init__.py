"""Evaluations side by side: the scores of models on tasks, their costs, and the Pareto front."""
