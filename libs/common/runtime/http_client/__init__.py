"""A lean HTTP/1.1 client: one write, one future and one shared timer for each exchange, on connections that are kept.

What decides where may be connected to is not here: whoever uses it opens the connections (`Pool.adopt`) and judges
addresses before. It reads bounded answers, follows nothing, decompresses nothing and remembers no cookie.
"""
