"""Interfaces of instances on a host: who has which, where they are connected, their verbs."""
