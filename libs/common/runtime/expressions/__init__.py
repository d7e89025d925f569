"""jmespath expressions over payloads, for filters and transformations: compiled, and evaluated within a budget."""
