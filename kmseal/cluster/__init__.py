"""What both servers need of a cluster: feeds, the rules of KMSKeys, and opening an object under them.

``kmseal_operator`` and ``kmseal_webhook`` may not import each other; what a key may be used for has to be the same in
both, and stands here. Nothing here writes to the API server.
"""
