"""How long things take, and on what machine."""
