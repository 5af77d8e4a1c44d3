"""The HTTP API: complete on any ASGI server, with a fast lane under uvicorn."""
