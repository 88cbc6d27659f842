"""The same program on many workers: Ray Train, actor pools, tasks."""
