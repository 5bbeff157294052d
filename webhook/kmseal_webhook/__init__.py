"""The webhook: prepares annotated pods for their secrets, answers the pods' agents, and checks EncryptedSecrets.

Layers, an import goes downwards only: ``main`` > ``runtime`` > ``server`` and ``certificates``, beside ``mutation``,
``broker``, ``validation`` and ``missed`` > ``annotations``, ``rollover`` > ``authority``. It never imports
``kmseal_operator``; what both need is in ``kmseal.cluster``.
"""
