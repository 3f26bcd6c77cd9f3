"""Random lives of instances, held against a model of what the contract says."""
