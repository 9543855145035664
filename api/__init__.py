"""The OpenAI-compatible server: HTTP in front of one engine. `server.py` is the way in.

Importing this package imports nothing; its modules need the extra `serve`.
"""
