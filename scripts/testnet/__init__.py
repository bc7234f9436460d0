"""A whole federation on one machine: processes, an embedded chain, examples and reports."""
