"""Scripts that run another engine; each is started by `peer.py` with that engine's own python.

They stand alone: nothing of minisgl-tui can be imported where they run. `wire.py` is shared.
"""
