"""Evaluations side by side: the scores of models on tasks, what they cost, and the front of those that none beats."""
