"""The portal: the page on which an application's own users look after their endpoints.

It is a client of the HTTP API under the visitor's application token, so that it can do what the token may do and
nothing else; it reads no table of its own.
"""
