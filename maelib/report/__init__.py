"""The paper's numbers, and the tables, figures and verdicts that are made from the records."""

# One colour a model in every notebook; the forms of L_diverse that are not the default have theirs.
COLOURS = {
    "vae": "#949494",
    "vlae": "#D55E00",
    "mae": "#0173B2",
    "tempered": "#0173B2",
    "mean": "#DE8F05",
    "pairwise": "#029E73",
}
