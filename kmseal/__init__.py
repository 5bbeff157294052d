"""Secrets in Git for Kubernetes, with every data key wrapped by Alibaba Cloud KMS.

This package is the library and the command line. Key management in one paragraph: a value is encrypted under a data
key that exists in plaintext only while somebody seals or opens; the data key is stored wrapped by a KMS key that never
leaves KMS; who may call Decrypt on that key may open, and nobody else. The compatibility promise is that of
``docs/format.md``: what a release can seal, every later release with the same format label can open.

Do not build other uses of the envelope on its parts: seal and open whole values through ``kmseal.envelope``.
"""

__version__ = "0.1.0"
