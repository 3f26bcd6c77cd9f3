"""The daemon, its guests or its journal die, anywhere: nothing is lost, left or done twice."""
