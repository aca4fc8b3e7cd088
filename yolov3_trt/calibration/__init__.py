"""Calibration: which range of each tensor INT8 covers, from pictures, and the table that keeps it."""
