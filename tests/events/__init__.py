"""Events, consoles and operations as streams: in order, without a gap that is not told."""
