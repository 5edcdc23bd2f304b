"""``make reproduce``: which notebooks run, with which parameters, and how far they are."""
