"""The service under load, by real processes: `python -m benchmarks.service [PART …]`."""
