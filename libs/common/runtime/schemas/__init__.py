"""JSON Schemas of event types: judged when they are registered, compiled once, and bounded in what a check costs."""
