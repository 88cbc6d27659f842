"""One field for many molecules."""
