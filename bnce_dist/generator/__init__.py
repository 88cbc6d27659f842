"""What a user holds: target, emulator, learned density, weighted conformations, verdict."""
