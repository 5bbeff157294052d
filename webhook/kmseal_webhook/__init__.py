"""The webhook: prepares annotated pods for their secrets, answers the pods' agents, and checks EncryptedSecrets.

Layers, an import goes downwards only: ``main`` > ``server`` > ``mutation``, ``broker``, ``validation``, ``missed`` >
``annotations``. It never imports ``kmseal_operator``; what both need is in ``kmseal.cluster``.
"""
