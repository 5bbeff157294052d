"""What runs inside annotated pods: fetches their secrets from the broker and keeps the files up to date.

The standard library only, so that its image is small and it starts at once. It never prints a value.
"""
