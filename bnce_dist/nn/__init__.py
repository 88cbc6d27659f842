"""Neural networks: velocity fields and energy models. They know no molecule."""
