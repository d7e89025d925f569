"""The providers whose webhooks a source can receive: one module for each, with its `Scheme`, and one table of them.

A request is read in this order, and each step may refuse it: `verify` the raw bytes, `extract_document`, parse the
JSON (elsewhere: these modules never see unverified structure), `identify`.
"""
