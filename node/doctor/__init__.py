"""`folkmoot doctor`: are this home and what it needs in order? Changes nothing, with a node or without."""
