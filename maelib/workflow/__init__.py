"""``make reproduce``: which notebooks run, their parameters and their progress."""
