"""The operator: turns EncryptedSecrets into native Secrets and keeps them so.

The life of an object: ``feed`` tells the ``ledger`` what the API server has; the ledger puts the keys of objects with
work into the ``queue``; a worker of ``reconcile`` gathers, asks the pure ``decide`` and applies. Nothing outside
``main`` knows of kopf, and nothing here is imported by the library.
"""
