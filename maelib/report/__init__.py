"""What is printed: the paper's numbers, tables, figures and verdicts, made from the records."""
