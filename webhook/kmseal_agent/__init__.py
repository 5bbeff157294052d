"""What runs inside annotated pods: fetches their secrets from the broker and keeps the files up to date.

The standard library only, so that its image is small and it starts at once: modules that are slow to import (asyncio,
dataclasses, logging, urllib.request) stay out. It never prints a value.

Layers, an import goes downwards only: ``main`` > ``rounds`` > ``broker``, ``content``, ``files``, ``reload`` >
``answer``, ``envfile``, ``schedule``, ``config`` > ``log``, ``errors``.
"""

__version__ = "0.1.0"
