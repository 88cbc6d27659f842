"""The published velocity fields: samples in our conventions, and their density learned by us."""
