"""One participant: daemon, network, training, data and store."""
