"""Measuring: the core alone, policies, the engine with a model, other engines, and servers.

`core` and `policies` need no model. `offline` runs `workloads` on the engine, `compare` beside its
peers, and `server` on anything that speaks the OpenAI protocol. Nothing in the engine needs these.
"""
