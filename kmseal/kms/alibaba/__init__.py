"""Alibaba Cloud KMS: the only package of kmseal that knows its SDK, its error codes and its credentials.

``kmseal.kms.keyring`` imports ``provider`` on first use and nothing else of it: importing the SDK takes 0.6 s, and a
command that needs no KMS must not pay for it.
"""
