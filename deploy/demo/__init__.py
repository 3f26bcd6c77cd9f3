"""`make run`: a guest spawned over gRPC on a daemon of its own, its events and console shown.

Private to the checkout: state, socket and log are below `.run`, the ports are
free ones. When it ends nothing is left: no guest, no process, no file.
"""
