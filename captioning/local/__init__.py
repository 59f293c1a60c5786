"""The service on one machine, behind `captioning run`: a supervisor of child processes.

It starts the same web and worker that production starts; only the URLs differ.
"""
