"""The worker: a Celery process that holds the models and captions micro-batches.

A message only wakes it (tasks.py); what there is to do it claims from SQL (station.py).
"""
