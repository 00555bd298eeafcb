"""The same services behind Ray Serve's gRPC proxy: doors that retry, workers that compute, on many nodes.

Ray is imported where it is used: `pip install 'trocar[ray]'`.
"""
