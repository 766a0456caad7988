"""A job of this machine, run on a cluster elsewhere through Ray's Jobs API."""
