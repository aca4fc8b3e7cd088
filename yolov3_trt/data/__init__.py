"""Sets of pictures, and what is in them: where they come from, which are chosen, how their labels are read."""
