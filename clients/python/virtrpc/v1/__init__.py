"""Generated stubs of virtrpc.v1."""
