"""The daemon: gRPC, the one road of a request, operations and events; never libvirt."""
