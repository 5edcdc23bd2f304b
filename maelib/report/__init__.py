"""The paper's numbers, and the tables, figures and verdicts that are made from the records."""
