"""Messages that no client of ours would send, to every RPC of the descriptors."""
