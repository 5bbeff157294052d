"""A real Kubernetes control plane for development and tests: etcd, kube-apiserver and kubectl, on loopback.

The integration tests, the benches and the demo use it, so that nothing here ever imitates the Kubernetes API.
``binaries`` finds or compiles the three programs, ``controlplane`` runs them, ``audit`` counts what clients asked
of the API server. ``python -m kmseal_dev.controlplane`` runs one by hand.

It is not shipped to users and must not be imported by the products: it starts processes, keeps keys in plain
files and grants cluster-admin to whoever asks.
"""
