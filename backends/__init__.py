"""Hypervisors behind one contract; nothing here knows gRPC or the journal."""
