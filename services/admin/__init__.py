"""The operator's command: `hookledger`."""
