"""Stages of a run as resumable functions over an artifact folder."""
