"""Settings: strict sections, read from YAML and ``key=value``."""
