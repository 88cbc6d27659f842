"""The stages of a run; each leaves one folder and can be stopped and continued anywhere."""
