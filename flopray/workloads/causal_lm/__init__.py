"""Causal language models: any decoder that transformers can build from a configuration, with random weights.

`CausalLM` is the workload. `models` finds configurations, `families` reads their sizes, `flops` and `bytes` are the
closed form, `agreement` counts the model that is built and compares the closed form with it, `transformer` builds what
is measured. A family without a closed form is measured too, and its rows say why `model_flops` is missing.
"""
