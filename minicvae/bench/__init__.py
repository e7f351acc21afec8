"""Measuring speed honestly: our training step against other libraries' on the same machine, in the same minutes.

Every contestant is a process of its own (`own.py`, `torch_peer.py`, `jax_peer.py`) that answers how long its work took
(`protocol.py`); `race.py` lets them work in turns, so that what else the machine does hits all alike, and compares turn
with turn. `machine.py` says what the machine can do at best, `profile.py` where a step's time goes.
"""
