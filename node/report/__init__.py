"""What a federation came to, for people: CSV, plots and a page that shows them, from what its nodes measured."""
