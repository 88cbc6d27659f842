"""The training loop: complete on one process, without Ray."""
