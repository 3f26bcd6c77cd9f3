"""Rules in a real kernel: frames on a wire of its own, as bytes, and what of them comes through."""
