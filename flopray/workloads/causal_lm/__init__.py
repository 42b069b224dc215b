"""Causal language models: any decoder that transformers can build from a configuration, with random weights.

`CausalLM` is the workload. `models` finds configurations, `families` reads their sizes, `flops` and `bytes` are the
closed form, `agreement` counts the model that is built and holds the closed form against it, `transformer` builds what
is measured. A family without a closed form is measured all the same, and its rows say why `model_flops` is missing.
"""
