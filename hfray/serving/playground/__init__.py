"""A page to try the models of a gateway, at /playground (extra `ui`)."""
