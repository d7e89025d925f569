"""The process: settings, logging, clock, health, stopping."""
