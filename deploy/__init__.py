"""How Hookledger is run: images, compose, and the local stack that needs neither."""
