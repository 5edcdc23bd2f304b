"""A literate reproduction of mutual posterior-divergence regularisation for VAEs (ICLR 2019)."""
