"""Work that outgrows one process, on Ray: actors that hold models and do one piece after another."""
