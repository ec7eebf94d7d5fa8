"""Training tools: encoder export, embedding, heads, calibration, triggers, evaluation, packaging.

Nothing here is imported by ``import raxe_fast``; most modules need the ``[train]`` extra.
"""
