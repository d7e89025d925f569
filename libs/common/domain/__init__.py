"""The pure core: decisions over frozen data. Standard library only; time and chance are arguments."""
